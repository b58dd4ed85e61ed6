"""Celery task messages, made and read without a Celery application.

The web process sends one task and needs nothing else of Celery. The format is version 2 of
Celery's documented message protocol (docs.celeryq.dev, "Message Protocol").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import msgspec

from servicekit.contracts.events import MalformedMessage
from servicekit.messaging import envelope
from servicekit.messaging.consumer import Handled
from servicekit.messaging.envelope import OutgoingMessage, Received, received

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


class Command(Protocol):
    """What a task is asked to do: its keyword arguments."""

    task_name: str

    def parse(self, payload: dict[str, Any]) -> Any:
        """Read the keyword arguments of the task.

        :raises MalformedMessage: if the contract does not allow them
        """


@dataclass(frozen=True)
class TaskSource:
    """A queue of one task: what reads its arguments, and what does many of them at once."""

    queue: str
    command: Command
    handle: Callable[[Sequence[Received[Any]]], Handled]

    def contract_of(self, delivery: Any) -> Command:
        """Return the contract of a delivery's keyword arguments.

        :raises MalformedMessage: if it is another task, or none
        """
        headers = envelope.headers_of(delivery)
        called = headers.get("task") if isinstance(headers, dict) else None
        if called != self.command.task_name:
            raise MalformedMessage(f"not the task {self.command.task_name}, but {called!r}")
        return self.command

    def read(self, delivery: Any) -> Received[Any]:
        """Return what a task message asks for, whatever a stranger has made of it.

        Its expiry, eta, time limits and retries count for nothing.

        :raises MalformedMessage: if it is no call of this task with keyword arguments alone
        """
        return received(self.contract_of(delivery).parse(_keywords_of(delivery)), delivery)


def _keywords_of(delivery: Any) -> dict[str, Any]:
    try:
        arguments, keywords, _embed = msgspec.json.decode(
            envelope.body_of(delivery), type=tuple[list[Any], dict[str, Any], Any]
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"no body of a Celery task: {error}") from error
    if arguments:
        raise MalformedMessage("a Celery task with positional arguments")
    return keywords
