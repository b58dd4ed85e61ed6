"""The Celery worker's own consumer: prompt to come back, and never ended by a message."""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.events import EventDispatcher
from celery.worker.consumer import Consumer
from celery.worker.consumer.control import Control

logger = logging.getLogger(__name__)


class PromptDispatcher(EventDispatcher):
    """Sends an event once or not at all: no task waits for who looks on (Flower)."""

    _outbound_buffer: deque[Any]

    def send(self, type: str, *args: Any, **fields: Any) -> None:  # noqa: A002 - Celery's signature
        """Send an event."""
        super().send(type, *args, **{**fields, "retry": False})
        self._outbound_buffer.clear()


class RemoteControl(Control):
    """Celery's own, without which a worker works as well: its user may lack the rights."""

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        # Celery's puts methods of its mailbox in the place of the step's own.
        self._start_mailbox, self.start = self.start, self._start_if_allowed  # type: ignore[method-assign]

    def _start_if_allowed(self, parent: Any) -> None:
        try:
            self._start_mailbox(parent)
        except parent.channel_errors as error:
            logger.warning("without remote control: %s", error)


class BatchingConsumer(Consumer):
    """Gives every message to the strategy of the one task that the worker's queue is for, if any.

    Celery itself would acknowledge and drop what it cannot decode, and some bodies that a stranger
    can send end its worker, again at every start. The strategy dead-letters what is no such task.
    """

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc,valid-type]  # its types have a variable
        """Celery's parts, one of them ours."""

        default_steps = [
            RemoteControl if step.endswith(":Control") else step
            for step in Consumer.Blueprint.default_steps
        ]

    def __init__(self, *args: Any, **options: Any) -> None:
        # Equal consumers have nothing to tell each other, and the broker's own heartbeats tell the
        # living from the dead. Celery's are for who looks on.
        options |= {"without_gossip": True, "without_mingle": True}
        options["without_heartbeat"] = not options["app"].conf.worker_enable_remote_control
        super().__init__(*args, **options)

    def connection_for_write(self, url: str | None = None, heartbeat: Any = None) -> Any:  # noqa: ARG002 - Celery's signature
        """Return the connection of events; without heartbeats, which wait while a batch is held."""
        return super().connection_for_write(url, heartbeat=0)

    def ensure_connected(self, conn: Any) -> Any:
        """Return the connection once it is there, trying about every second."""
        # Celery's own pauses grow by two seconds to thirty: after an outage of a minute, accepted
        # orders would wait half a minute longer than they have to.
        conn.ensure_connection = partial(
            conn.ensure_connection, interval_start=0.2, interval_step=0.4, interval_max=1.0
        )
        connected: Any = super().ensure_connected(conn)
        # A limit for each consumer instead of one for all of the channel, of which there is one:
        # quorum queues know no other, and that ours are such no argument tells Celery.
        connected.transport.qos_semantics_matches_spec = lambda _connection: True
        return connected

    def create_task_handler(self) -> Callable[[Any], None]:  # type: ignore[override]  # Celery's takes a promise class
        """Return what is called with each message."""
        own = [name for name in self.app.tasks if not name.startswith("celery.")]
        strategies: dict[str, Callable[[Any], None]] = self.strategies  # type: ignore[attr-defined]  # its types do not know it
        return strategies[own[0]] if own else super().create_task_handler()

    def on_decode_error(self, message: Any, exc: Exception) -> None:  # noqa: ARG002 - Celery's signature
        """Take a message that Celery cannot decode as any other: a dead letter, with its reason.

        One in the mailbox of the remote control is dropped.
        """
        if message.channel is self.task_consumer.channel:  # type: ignore[attr-defined]  # its types do not know it
            self.create_task_handler()(message)
