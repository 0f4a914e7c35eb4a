"""The book: run all notebooks, try them with quick parameters, and save them as the repository carries them.

    python -m supertf.lab.book run   [NAME ...]  as shipped, into build/notebooks and a browsable build/book
    python -m supertf.lab.book smoke [NAME ...]  exercises solved, quick parameters (tests/smoke.yaml)
    python -m supertf.lab.book save  [NAME ...]  as shipped and stored in place, with outputs (and PICTURES)

Run from the repository's root. Names are file names without the suffix; without any, all notebooks run in
number order. A failing notebook does not stop the others, none is tried twice; the exit code is 1 when any
failed.
"""

import argparse
import sys

from supertf.errors import UserError
from supertf.lab.book.runs import find_notebooks, run, save, smoke


def main(argv: list[str] | None = None) -> int:
    """0 when every notebook went well, 1 when one failed, 2 on a mistake in the call."""
    parser = argparse.ArgumentParser(prog="python -m supertf.lab.book", description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("run", "smoke", "save"))
    parser.add_argument("names", nargs="*", help="notebooks, without suffix; all if none is given")
    args = parser.parse_args(argv)
    try:
        results = {"run": run, "smoke": smoke, "save": save}[args.task](find_notebooks(args.names))
    except UserError as error:
        print(f"supertf.lab.book: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("supertf.lab.book: stopped; what was done before is kept", file=sys.stderr)
        return 130
    failed = [result.name for result in results if result.problems]
    print(
        f"{len(results) - len(failed)} of {len(results)} notebooks passed"
        + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
