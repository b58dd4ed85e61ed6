"""The matrix: what each fault did, on the terminal and in docs/reliability.md."""

from collections.abc import Sequence

from deploy.console import table
from deploy.settings import ROOT
from tools.chaos.trial import Result

DOCUMENT = ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- written by make chaos: begin -->", "<!-- written by make chaos: end -->"
HEADING = (
    "fault", "edge", "accepted", "lost", "unexpected", "mismatch", "doubled", "retold", "ledger",
    "5xx", "over 2 s", "longest s", "refused", "confirmed s", "at rest s",
)  # fmt: skip


def as_row(result: Result) -> list[str]:
    """Return the cells of one fault."""
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


def matrix(results: Sequence[Result]) -> str:
    """Lay out one line for each fault."""
    return table([HEADING, *map(as_row, results)])


def write(results: Sequence[Result], how: str) -> None:
    """Put the matrix into the document, under a sentence that says how it was measured."""
    lines = [f"| {' | '.join(cells)} |" for cells in (HEADING, *map(as_row, results))]
    lines.insert(1, "|---|---|" + "---:|" * (len(HEADING) - 2))
    before, _, rest = DOCUMENT.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    DOCUMENT.write_text("\n".join([f"{before}{_BEGIN}", how, "", *lines, f"{_END}{after}"]))
