"""`python -m tools.ledger`: the ledger on the terminal."""

import argparse
import os
import sys
from collections.abc import Sequence

from deploy.failure import DeployFailure
from deploy.settings import load
from tools import ledger


def _say(what: str) -> None:
    """Write over the one line on the terminal; nothing where there is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what and f'  … {what}'}", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the ledger; return 0 when all agrees, 1 when something differs, 2 without a server."""
    parser = argparse.ArgumentParser(prog="python -m tools.ledger", description=ledger.__doc__)
    parser.add_argument(
        "--wait",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long to wait for the system to come to rest (default: 60)",
    )
    options = parser.parse_args(arguments)
    try:
        settings = {**load(), **os.environ}
        report = ledger.check_ledger(settings, wait_seconds=options.wait, progress=_say)
    except DeployFailure as failure:
        _say("")
        print(failure, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        _say("")
        return 130
    _say("")
    print(report)
    differing = sum(check.verdict == "DIFFERS" for check in report.checks)
    print(f"\n{differing} of {len(report.rows)} checks differ." if differing else "\nAll agrees.")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
