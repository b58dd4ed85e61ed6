"""What `make up` and its siblings say while they work."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Progress:
    """Hears of each step of the work. This one keeps silent; tests use it."""

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Announce one piece of work for as long as it takes."""
        yield

    def note(self, sentence: str) -> None:
        """Say something worth knowing that is neither a step nor a failure."""


class TerminalProgress(Progress):
    """One line per step, with its duration, on standard error."""

    # Standard output belongs to what a command is asked for (`env`, `ps`).

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        interactive = sys.stderr.isatty()
        if interactive:
            print(f"  … {what}", end="", file=sys.stderr, flush=True)
        mark = "✗"
        try:
            yield
            mark = "✓"
        finally:
            seconds = time.monotonic() - started
            start_of_line = "\r" if interactive else ""
            print(f"{start_of_line}  {mark} {what:<44} {seconds:6.1f} s", file=sys.stderr)

    def note(self, sentence: str) -> None:
        print(f"  · {sentence}", file=sys.stderr)


def table(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """Lay out rows in columns as wide as their widest cell; the first row is the heading.

    With `numbers`, all columns but the first are aligned on the right.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    align = [str.ljust, *([str.rjust if numbers else str.ljust] * (len(widths) - 1))]
    return "\n".join(
        "  ".join(
            pad(cell, width) for pad, cell, width in zip(align, row, widths, strict=True)
        ).rstrip()
        for row in rows
    )
