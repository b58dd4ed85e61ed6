"""What runs in a worker beside its tasks: event consumers, the relay, the watchdog.

Each is a thread with connections of its own. A thread that ends before it was asked to is a bug,
and makes the worker's sign of life stop.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections

from celery_workers.configuration import topology
from servicekit import worker_metrics
from servicekit.caching.redis import forget_outdated
from servicekit.messaging.consumer import BatchConsumer, Subscription
from servicekit.messaging.topology import dead_letter_queue_name
from servicekit.outbox.relay import Relay
from servicekit.parking.threads import Collector, Replayer
from servicekit.threads import StoppableThread

logger = logging.getLogger(__name__)

TRANSIENT_ERRORS = (OperationalError, InterfaceError)
"""What a database that is away, or busy, raises: the batch is held and tried again."""


class Periodic(StoppableThread):
    """Calls a function every so often, whatever it raises."""

    def __init__(self, function: Callable[[], object], *, every_seconds: float) -> None:
        super().__init__(function.__name__)
        self._function = function
        self._every_seconds = every_seconds

    def run(self) -> None:
        """Call until stopped."""
        while not self.stopping.wait(self._every_seconds):
            try:
                close_old_connections()
                self._function()
            except TRANSIENT_ERRORS as error:
                logger.warning("%s: %s", self.name, error)
            except Exception:
                logger.exception("%s failed", self.name)


class SignOfLife(StoppableThread):
    """Touches a file while Celery takes tasks, every thread runs and every consumer consumes.

    A health check then needs no more than the age of a file (`WORKER_ALIVE_FILE`).
    """

    def __init__(
        self,
        threads: Sequence[StoppableThread],
        takes_tasks: threading.Event,
        *,
        every_seconds: float = 1.0,
    ) -> None:
        super().__init__("sign of life")
        self._threads = threads
        self._takes_tasks = takes_tasks
        self._every_seconds = every_seconds

    def run(self) -> None:
        """Touch the file until stopped."""
        path = os.environ.get("WORKER_ALIVE_FILE")
        while path and not self.stopping.wait(self._every_seconds):
            if self._takes_tasks.is_set() and all(map(self._is_well, self._threads)):
                Path(path).touch()

    @staticmethod
    def _is_well(thread: StoppableThread) -> bool:
        return thread.is_alive() and (not isinstance(thread, BatchConsumer) or thread.is_consuming)


def run_in_background(
    app: Celery,
    subscriptions: Sequence[Subscription],
    periodic: Sequence[Periodic] = (),
    explain: Mapping[str, Callable[[bytes], str]] | None = None,
) -> None:
    """Make every worker of `app` consume the subscriptions, relay events and call `periodic`.

    `explain` says, by queue, why a task of this body was rejected.
    """
    takes_tasks = threading.Event()
    names = [subscription.queue for subscription in subscriptions]
    names += [queue.name for queue in app.conf.task_queues]

    class Background(bootsteps.StartStopStep):
        """Starts the threads with the worker and ends them with it."""

        def __init__(self, parent: Any, **options: Any) -> None:
            super().__init__(parent, **options)
            consumers = [
                BatchConsumer(
                    subscription,
                    broker_url=settings.BROKER_URL,
                    topology=topology,
                    transient_errors=TRANSIENT_ERRORS,
                    before_batch=close_old_connections,
                )
                for subscription in subscriptions
            ]
            repairs = Periodic(forget_outdated, every_seconds=1)
            working: list[StoppableThread] = [
                repairs,
                *consumers,
                Relay(broker_url=settings.BROKER_URL),
                Collector(
                    names, broker_url=settings.BROKER_URL, topology=topology, explain=explain
                ),
                Replayer(broker_url=settings.BROKER_URL),
                *periodic,
            ]
            self._threads: list[StoppableThread] = [*working, SignOfLife(working, takes_tasks)]

        def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            """Start all."""
            for thread in self._threads:
                thread.start()
            worker_metrics.serve([*names, *map(dead_letter_queue_name, names)])

        def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            """End all; what a consumer has in hand and cannot finish comes again."""
            for thread in self._threads:
                thread.stop()
            for thread in self._threads:
                thread.join(timeout=10)

    class DeadLetterQueues(bootsteps.StartStopStep):
        """Declares where the tasks are parked that cannot be run, before the first is taken."""

        requires = ("celery.worker.consumer.connection:Connection",)

        def start(self, parent: Any) -> None:
            """Declare them, at every connection: the broker may be a new one."""
            with parent.connection.channel() as channel:
                for queue in app.conf.task_queues:
                    topology.dead_letter_queue(queue.name)(channel).declare()

    class TakingTasks(bootsteps.StartStopStep):
        """Knows whether Celery itself is connected; it comes back later than our own threads."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            """Note that tasks reach us."""
            takes_tasks.set()

        def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            """Note that they do not, until the next start."""
            takes_tasks.clear()

    app.steps["worker"].add(Background)
    app.steps["consumer"].add(DeadLetterQueues)
    app.steps["consumer"].add(TakingTasks)
