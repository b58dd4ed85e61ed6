"""Log lines: one event, one line, whatever a stranger managed to get into it."""

import logging


class OneLineFormatter(logging.Formatter):
    """Renders `time level logger: message`, with control characters escaped."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line; a line break in a message would let its author forge the next line."""
        line = super().formatMessage(record)
        return line if line.isprintable() else line.encode("unicode_escape").decode("ascii")
