"""`make chaos`: faults under load in a system of its own, and whether any promise breaks."""

import argparse
import random
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import takewhile

from deploy.console import TerminalProgress, table
from deploy.failure import DeployFailure
from deploy.settings import ROOT
from tools.chaos import trial
from tools.chaos.faults import FAULTS, Fault, at_random, named
from tools.chaos.harness import Harness
from tools.chaos.trial import Result

_DOCUMENT = ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- written by make chaos: begin -->", "<!-- written by make chaos: end -->"
_HEADING = (
    "fault", "edge", "accepted", "lost", "unexpected", "mismatch", "doubled", "retold", "ledger",
    "5xx", "over 2 s", "longest s", "refused", "confirmed s", "at rest s",
)  # fmt: skip
_EXAMPLES = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials, print the matrix; return 0 if all books agreed after each of them."""
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description=__doc__)
    parser.add_argument("--faults", help="names, with commas; two at once with + between them")
    parser.add_argument("--seconds", type=float, default=4, help="of each fault (default: 4)")
    parser.add_argument("--rate", type=float, default=200, help="orders a second (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="of every choice (default: 1)")
    parser.add_argument("--minutes", type=float, help="of faults at random, some two at once")
    options = parser.parse_args(arguments)
    faults: Iterable[Fault] = FAULTS
    if options.faults:
        faults = [named(name) for name in options.faults.split(",")]
    elif options.minutes:
        until = time.monotonic() + options.minutes * 60
        endless = at_random(random.Random(options.seed))
        faults = takewhile(lambda _: time.monotonic() < until, endless)
    results = []
    wanted = {"seed": options.seed, "seconds": options.seconds, "rate": options.rate}
    try:
        with Harness.temporary("chaos", TerminalProgress()) as stack:
            for fault in faults:
                results.append(trial.run(stack, fault, **wanted))
                _tell(results[-1])
    except DeployFailure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    rates = [result.rate for result in results]
    how = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: seed {options.seed}, {options.seconds:g} s of "
        f"each fault, {options.rate:g} orders a second wanted, "
        f"{min(rates, default=0):.0f} to {max(rates, default=0):.0f} sent."
    )
    rows = [_HEADING, *map(_cells, results)]
    print(f"\n{table(rows)}\n\n{how}")
    if faults is FAULTS and len(results) == len(FAULTS):
        _write(rows, how)
    return int(any(result.broken for result in results))


def _cells(result: Result) -> Sequence[str]:
    found = result.found
    counts = (
        result.accepted, len(found.lost), len(found.unexpected), len(found.mismatch),
        len(found.doubled), len(found.retold), len(result.ledger),
        len(result.errors), len(result.slow),
    )  # fmt: skip
    return [
        result.fault.name,
        result.fault.edge,
        *(f"{count:,}" for count in counts),
        f"{result.longest_seconds:.1f}",
        f"{len(result.refused):,}" if result.fault.accepts else "-",
        *(
            "never" if seconds is None else f"{seconds:.1f}"
            for seconds in (result.confirmed_seconds, result.recovered_seconds)
        ),
    ]


def _write(rows: Sequence[Sequence[str]], how: str) -> None:
    """Put the matrix into the document, under a sentence that says how it was measured."""
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    lines.insert(1, "|---|---|" + "---:|" * (len(_HEADING) - 2))
    before, _, rest = _DOCUMENT.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    _DOCUMENT.write_text("\n".join([f"{before}{_BEGIN}", how, "", *lines, f"{_END}{after}"]))


def _tell(result: Result) -> None:
    """Print what has become of a fault, with the first examples of what is not as it should be."""
    mark = "✗" if result.broken else "✓"
    numbers = zip(_HEADING[2:], _cells(result)[2:], strict=True)
    print(f"  {mark} {result.fault.name}: {', '.join(map(' '.join, numbers))}")
    print(f"      {result.rate:.0f} orders/s; at last {result.waited_for or 'waited for nothing'}")
    for sentences in (result.broken, result.refused, result.slow):
        for sentence in sentences[:_EXAMPLES]:
            print(f"      {sentence}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
