"""The Celery worker's own connection to the broker."""

from functools import partial
from typing import Any

from celery.worker.consumer import Consumer


class PromptConsumer(Consumer):
    """Comes back soon after the broker does.

    Celery's own pauses grow by two seconds to thirty: after an outage of a minute, accepted orders
    would wait half a minute longer than they have to.
    """

    def ensure_connected(self, conn: Any) -> Any:
        """Return the connection once it is there, trying about every second."""
        conn.ensure_connection = partial(
            conn.ensure_connection, interval_start=0.2, interval_step=0.4, interval_max=1.0
        )
        return super().ensure_connected(conn)
