"""`make chaos`: faults under load in a system of its own, and whether any promise breaks."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from deploy.console import TerminalProgress
from deploy.failure import DeployFailure
from deploy.native.ports import Ports
from deploy.native.stack import Stack
from deploy.settings import ROOT
from tools.chaos import trial
from tools.chaos.faults import FAULTS
from tools.chaos.report import as_row, matrix


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials; return 0 if no promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description=__doc__)
    parser.add_argument("--faults", type=lambda text: text.split(","), help="names, with commas")
    parser.add_argument("--seconds", type=float, default=6, help="of each fault (default: 6)")
    parser.add_argument("--rate", type=float, default=200, help="orders a second (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="of every choice (default: 1)")
    options = parser.parse_args(arguments)
    chosen = [each for each in FAULTS if not options.faults or each.name in options.faults]
    results = []
    try:
        with _system(TerminalProgress()) as stack:
            for fault in chosen:
                result = trial.run(
                    stack, fault, seed=options.seed, seconds=options.seconds, rate=options.rate
                )
                results.append(result)
                print(as_row(result), flush=True)
                for each in result.broken[:10] + result.refused[:3] + result.slow[:3]:
                    print(f"    {each}", flush=True)
    except DeployFailure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(matrix(results))
    return int(any(result.broken for result in results))


@contextmanager
def _system(progress: TerminalProgress) -> Iterator[Stack]:
    stack = Stack(ROOT / ".run" / f"chaos-{os.getpid()}", Ports.free(), progress=progress)
    try:
        stack.up()
        yield stack
    finally:
        stack.remove()


if __name__ == "__main__":
    sys.exit(main())
