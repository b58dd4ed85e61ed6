"""Celery task messages, made without a Celery application.

The web process sends one task and needs nothing else of Celery. The format is version 2 of
Celery's documented message protocol (docs.celeryq.dev, "Message Protocol").
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from servicekit.contracts.events import MalformedMessage
from servicekit.messaging.publisher import OutgoingMessage


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
        },
        # Positional arguments, keyword arguments, and no callbacks, errbacks, chain or chord.
        body=msgspec.json.encode(
            [[], kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
        ),
    )


def explained_by(parse: Callable[[dict[str, Any]], object]) -> Callable[[bytes], str]:
    """Return a function that says what `parse` has against the arguments of a task, or nothing.

    The broker does not keep the reason for which a worker has rejected a task.
    """

    def explain(body: bytes) -> str:
        try:
            _arguments, keywords, _embedded = msgspec.json.decode(body)
            parse(keywords)
        except (MalformedMessage, msgspec.MsgspecError, ValueError, TypeError) as error:
            return str(error)
        except RecursionError:
            return "nested too deep to be read"
        return ""

    return explain
