"""The matrix: what each fault did."""

from collections.abc import Sequence

from deploy.console import table
from tools.chaos.trial import Result

_HEADING = (
    "fault", "edge", "orders/s", "accepted", "lost", "unexpected", "mismatch", "doubled", "ledger",
    "5xx", "over 2 s", "longest s", "refused", "confirmed s", "at rest s",
)  # fmt: skip


def as_row(result: Result) -> list[str]:
    """Return the cells of one fault."""
    found = result.found
    counts = (
        result.accepted, len(found.lost), len(found.unexpected), len(found.mismatch),
        len(found.doubled), len(result.ledger), len(result.errors), len(result.slow),
    )  # fmt: skip
    return [
        result.fault.name,
        result.fault.edge,
        f"{result.rate:.0f}",
        *(f"{count:,}" for count in counts),
        f"{result.longest_seconds:.1f}",
        f"{len(result.refused):,}" if result.fault.accepts else "-",
        *(
            "never" if seconds is None else f"{seconds:.1f}"
            for seconds in (result.confirmed_seconds, result.recovered_seconds)
        ),
    ]


def matrix(results: Sequence[Result]) -> str:
    """Lay out one line for each fault."""
    return table([_HEADING, *map(as_row, results)])
