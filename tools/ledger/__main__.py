"""`python -m tools.ledger`: the ledger on the terminal."""

import argparse
import os
import sys
from collections.abc import Sequence

from deploy.failure import DeployFailure
from deploy.settings import load
from tools import ledger


def _tell(what: str) -> None:
    """Write over the last line of the terminal, or only clear it; nothing where there is none."""
    if sys.stderr.isatty():
        line = f"  … {what}" if what else ""
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the ledger; return 0 when all agrees, 1 when something differs, 2 without a server."""
    parser = argparse.ArgumentParser(prog="python -m tools.ledger", description=ledger.__doc__)
    patience = "how long to wait for the system to come to rest (default: 60)"
    parser.add_argument("--wait", type=float, default=60, metavar="SECONDS", help=patience)
    options = parser.parse_args(arguments)
    try:
        settings = {**load(), **os.environ}
        report = ledger.check_ledger(settings, wait_seconds=options.wait, progress=_tell)
    except DeployFailure as failure:
        _tell("")
        print(failure, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        _tell("")
    print(report)
    differing = sum(check.verdict == "DIFFERS" for check in report.checks)
    print(f"\n{differing} of {len(report.rows)} checks differ." if differing else "\nAll agrees.")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
