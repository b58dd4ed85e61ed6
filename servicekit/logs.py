"""Log lines: one event, one line, whatever a stranger managed to get into it.

Everybody logs by Python's own `logging`; what a line is about is said in `extra`, by the names in
`FIELDS`. Knows nothing of Django: gunicorn's configuration uses it before there is any.
"""

import json
from typing import Any

from structlog.processors import TimeStamper, format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, WrappedLogger

from servicekit import correlation

FIELDS = ("request_id", "trace_id", "order_id", "product_id", "queue", "messages", "milliseconds")
"""What `extra` may say. Libraries put whole objects there, which are not for anybody's eyes."""

_HEAD = ("timestamp", "level", "logger", "event")


def as_json(_logger: WrappedLogger, _method: str, line: EventDict) -> str:
    """Render a line as a JSON object: time, level, logger, message, and what it is about."""
    known = dict(zip(("time", "level", "logger", "message"), map(line.pop, _HEAD), strict=True))
    # ASCII, so that no line separator of Unicode's ends the line; JSON escapes the others itself.
    return json.dumps({**known, **line}, default=str).replace("\x7f", "\\u007f")


def as_text(_logger: WrappedLogger, _method: str, line: EventDict) -> str:
    """Render a line as `time level logger: message name=value`, a traceback indented below it."""
    traceback = line.pop("exception", "")
    time, level, logger, message = map(line.pop, _HEAD)
    fields = "".join(f" {name}={value}" for name, value in line.items())
    text = _printable(f"{time} {level.upper():<7} {logger}: {message}{fields}")
    # What an exception says may be a stranger's, too: no line of it looks like one of ours.
    return "\n    | ".join([text, *map(_printable, traceback.splitlines())])


def _printable(line: str) -> str:
    return line if line.isprintable() else line.encode("unicode_escape").decode("ascii")


def _add_correlation(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    request = correlation.current()
    if request is not None:
        for name, value in request.log_fields.items():
            line.setdefault(name, value)
    return line


def line_formatter(log_format: str) -> ProcessorFormatter:
    """Return the formatter for `text` or `json`.

    :raises ValueError: if it is neither
    """
    renderers = {"text": as_text, "json": as_json}
    if log_format not in renderers:
        raise ValueError(f"LOG_FORMAT is {log_format!r}; it must be text or json")
    return ProcessorFormatter(
        foreign_pre_chain=[
            TimeStamper(fmt="iso", utc=True),
            add_log_level,
            add_logger_name,
            ExtraAdder(allow=FIELDS),
            _add_correlation,
            format_exc_info,
        ],
        processors=[ProcessorFormatter.remove_processors_meta, renderers[log_format]],
    )


def configuration(*, level: str, log_format: str) -> dict[str, Any]:
    """Return what `logging.config.dictConfig` takes, for any process of the system."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": line_formatter, "log_format": log_format}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Says every 4xx again, which its caller has been told.
            "django.request": {"level": "ERROR"},
            # A pool without a server repeats itself every second; the requests that fail say it
            # too.
            "psycopg.pool": {"level": "ERROR"},
            # Two lines per task, beside the one of the task itself.
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
            # At DEBUG, libraries speak of every frame and every statement; we speak of orders.
            **({name: {"level": "INFO"} for name in _TALKATIVE} if level == "DEBUG" else {}),
        },
    }


_TALKATIVE = ("amqp", "asyncio", "celery", "django", "kombu", "psycopg", "urllib3")
