"""The Celery worker's own consumer: prompt to come back, and never ended by a message."""

from collections.abc import Callable
from functools import partial
from typing import Any

from celery.worker.consumer import Consumer

from celery_workers.batches import Batches, no_tasks


class BatchingConsumer(Consumer):
    """Gives every message to the strategy of the one task that the worker's queue is for.

    Celery itself would acknowledge and drop what it cannot decode, and some bodies that a stranger
    can send end its worker, again at every start. The strategy parks what is no such task.
    """

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
        return strategies[own[0]] if own else Batches(no_tasks(self.app), self)

    def on_decode_error(self, message: Any, exc: Exception) -> None:  # noqa: ARG002 - Celery's signature
        """Take a message that Celery cannot decode as any other: it is parked with its reason."""
        self.create_task_handler()(message)
