"""`supertf doctor`: what this machine has and what is missing."""

import argparse

from supertf.cli.doctor import report
from supertf.cli.main import print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to report, and how long to wait for the hub."""
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds to wait for the hub")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the report; 0 when the offline lab has all it needs, 1 when something is missing."""
    result = report(args.timeout)
    if args.json:
        print_result(result, as_json=True)
        return 0 if result["ok"] else 1
    missing = result.pop("missing")
    ok = result.pop("ok")
    versions = result.pop("versions")
    print_result(
        {"supertf": result.pop("supertf"), "python": result.pop("python")} | versions | result, False
    )
    for name, command in missing.items():
        print(f"missing: {name}; mend it with: {command}")
    print("everything the offline lab needs is here" if ok else "see the lines above")
    return 0 if ok else 1
