"""Celery task messages, made and read without a Celery application.

The web process sends one task and needs nothing else of Celery. The format is version 2 of
Celery's documented message protocol (docs.celeryq.dev, "Message Protocol").
"""

from typing import Any
from uuid import UUID

import msgspec

from servicekit.contracts.events import MalformedMessage
from servicekit.messaging import envelope
from servicekit.messaging.envelope import OutgoingMessage

# No callbacks, errbacks, chain or chord.
_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def task_message(*, task: str, queue: str, task_id: UUID, kwargs: Any) -> OutgoingMessage:
    """Return the message that makes a worker on `queue` call `task(**kwargs)` once."""
    identity = str(task_id)
    return OutgoingMessage(
        exchange="",
        routing_key=queue,
        message_id=identity,
        correlation_id=identity,
        headers={
            "lang": "py",
            "task": task,
            "id": identity,
            "root_id": identity,
            "parent_id": None,
            "group": None,
            "argsrepr": "()",
            "kwargsrepr": "{...}",
            "ignore_result": True,
            **envelope.headers(None),
        },
        # Positional arguments, keyword arguments, and what is called afterwards.
        body=msgspec.json.encode([[], kwargs, _EMBED]),
    )


def keywords_of(delivery: Any, *, task: str) -> dict[str, Any]:
    """Return the keyword arguments of a task message, whatever a stranger has made of it.

    Its expiry, eta, time limits and retries count for nothing.

    :raises MalformedMessage: if it is no call of the task with keyword arguments alone
    """
    headers = envelope.headers_of(delivery)
    called = headers.get("task") if isinstance(headers, dict) else None
    if called != task:
        raise MalformedMessage(f"not the task {task}, but {called!r}")
    try:
        arguments, keywords, _embed = msgspec.json.decode(
            envelope.body_of(delivery), type=tuple[list[Any], dict[str, Any], Any]
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"no body of a Celery task: {error}") from error
    if arguments:
        raise MalformedMessage("a Celery task with positional arguments")
    return keywords
