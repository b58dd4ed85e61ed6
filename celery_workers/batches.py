"""Tasks in batches, by Celery's own extension point: the strategy of a task.

Celery takes the messages from RabbitMQ and gives each to the strategy of its task, together with
the right to acknowledge it. Ours puts them into the inbox that events go through as well: what has
arrived is handled in one call, and acknowledged when that is committed.
"""

import logging
from typing import Any

from celery.worker import state
from django.conf import settings

from celery_workers.policies import TASKS
from servicekit.messaging.celery_protocol import TaskSource
from servicekit.messaging.consumer import Inbox, Stopped
from servicekit.messaging.publisher import ConfirmingPublisher

logger = logging.getLogger(__name__)


class CeleryPump:
    """The connection of a Celery consumer."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    @property
    def is_stopping(self) -> bool:
        """Whether the worker was asked to end."""
        # An exit status once it stops, which may be 0.
        flags: tuple[object, object] = (state.should_stop, state.should_terminate)
        return any(flag is not None and flag is not False for flag in flags)

    def drain(self, timeout_seconds: float) -> bool:
        """Take what the broker sends next; return whether it sent anything in time."""
        try:
            self._consumer.connection.drain_events(timeout=timeout_seconds)
        except TimeoutError:
            self._consumer.connection.heartbeat_check()
            return False
        return True

    def beat(self) -> None:
        """Tell the broker that we are still there, and take nothing."""
        self._consumer.connection.connection.send_heartbeat()


class Batches:
    """The strategy of a task; `source` says how its messages are read and what is done."""

    def __init__(self, source: TaskSource, consumer: Any) -> None:
        self._pump = CeleryPump(consumer)
        publisher = ConfirmingPublisher(settings.BROKER_URL)
        self._inbox = Inbox(source, pump=self._pump, publisher=publisher, policy=TASKS)
        self._is_busy = False

    def __call__(self, message: Any, *_arguments: Any) -> None:
        """Take a message, and handle it with what arrives at the same time."""
        self._inbox.put(message)
        if self._is_busy:
            # It came while a batch was being collected, or held.
            return
        self._is_busy = True
        try:
            while len(self._inbox) and not self._pump.is_stopping:
                self._inbox.process()
        except Stopped as stopped:
            logger.warning("%s", stopped)
        finally:
            self._is_busy = False
