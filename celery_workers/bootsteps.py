"""What runs in a worker beside its tasks: event consumers, the relay, the watchdog.

Each is a thread with connections of its own. A thread that ends before it was asked to is a bug,
and makes the worker's sign of life stop.
"""

import ctypes
import faulthandler
import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps
from django.conf import settings

from celery_workers.policies import DEAD_LETTERS, EVENTS
from servicekit import telemetry, worker_metrics, worker_reports
from servicekit.caching.redis import invalidate_outdated
from servicekit.database.loop import Loop
from servicekit.dead_letters.threads import DeadLetterSource, replayer
from servicekit.messaging import topology
from servicekit.messaging.consumer import ConsumerThread, Subscription
from servicekit.outbox.relay import relay
from servicekit.threads import StoppableThread, longest_step_seconds

logger = logging.getLogger(__name__)

_M_MMAP_THRESHOLD = -3  # mallopt(3)
# Memory of larger blocks goes back to the system when they are freed. By itself glibc keeps it, and
# fragments it: large dead letters, one after the other, would take three times as much.
_LARGE_BLOCK_BYTES = 1024 * 1024

STUCK_SECONDS = 60.0
"""No step takes as long: each statement and each call has a deadline of seconds."""


class SignOfLife(StoppableThread):
    """Touches a file while Celery takes tasks, every thread runs and every consumer consumes.

    A health check then needs no more than the age of a file (`WORKER_ALIVE_FILE`). A worker that is
    stuck with something in hand ends: whoever keeps it running starts it again, and the broker
    delivers what it had to the next. Waiting for a server that is away is not being stuck.
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
        was_stuck = False
        while not self.stopping.wait(self._every_seconds):
            is_stuck = longest_step_seconds() > STUCK_SECONDS
            # Seen twice: the whole process may have been stopped for a while.
            if is_stuck and was_stuck:
                _end_at_once()
            was_stuck = is_stuck
            is_well = self._takes_tasks.is_set() and all(map(self._is_well, self._threads))
            if path and is_well and not is_stuck:
                Path(path).touch()

    @staticmethod
    def _is_well(thread: StoppableThread) -> bool:
        return thread.is_alive() and (not isinstance(thread, ConsumerThread) or thread.is_consuming)


def _end_at_once() -> None:
    logger.critical("stuck for %.0f s with work in hand: ending", longest_step_seconds())
    faulthandler.dump_traceback()
    os._exit(os.EX_SOFTWARE)


def run_in_background(
    app: Celery,
    subscriptions: Sequence[Subscription],
    loops: Callable[[], Sequence[Loop]] = list,
) -> None:
    """Make every worker of `app` consume the subscriptions and run the loops of its service."""
    with suppress(AttributeError):  # it is glibc's
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
    takes_tasks = threading.Event()
    names = [subscription.queue for subscription in subscriptions]
    names += [queue.name for queue in app.conf.task_queues]

    class Background(bootsteps.StartStopStep):
        """Starts the threads with the worker and ends them with it."""

        def __init__(self, parent: Any, **options: Any) -> None:
            super().__init__(parent, **options)
            telemetry.start()
            url = settings.BROKER_URL
            working: list[StoppableThread] = [
                *(
                    ConsumerThread(each.queue, [each], broker_url=url, policy=EVENTS)
                    for each in subscriptions
                ),
                ConsumerThread(
                    "dead letters",
                    [DeadLetterSource(name) for name in names],
                    broker_url=url,
                    policy=DEAD_LETTERS,
                ),
                relay(url),
                replayer(url),
                Loop("cache invalidation", invalidate_outdated),
                Loop("report", worker_reports.tell),
                *loops(),
            ]
            self._threads: list[StoppableThread] = [*working, SignOfLife(working, takes_tasks)]

        def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            """Start all."""
            for thread in self._threads:
                thread.start()
            worker_metrics.serve()

        def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            """End all; what a consumer has in hand and cannot finish comes again."""
            for thread in self._threads:
                thread.stop()
            for thread in self._threads:
                thread.join(timeout=10)

    class TaskQueues(bootsteps.StartStopStep):
        """Declares the queues of the tasks, at every connection: the broker may be a new one."""

        requires = ("celery.worker.consumer.connection:Connection",)

        def start(self, parent: Any) -> None:
            """Declare them, before the first task is taken."""
            # Bodies stay the bytes that were sent, whatever their headers call them.
            parent.connection.default_channel.auto_decode = False
            with parent.connection.channel() as channel:
                for queue in app.conf.task_queues:
                    topology.declare_queue(channel, queue.name, keys=[])

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
    app.steps["consumer"].add(TaskQueues)
    app.steps["consumer"].add(TakingTasks)
