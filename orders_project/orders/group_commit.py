"""Group commit: requests that wait at the same time share one trip to where they become durable.

There is no timer. A batch is whatever arrived while the batch before it was on its way, so one
request alone waits for nobody, and a hundred at once cost little more than one.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from servicekit import metrics

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class NotCommitted(Exception):
    """The item is not durable, and nothing of it is left anywhere."""


class OutcomeUnknown(Exception):
    """The item may be durable or become so; there was no answer in time."""


class _Ticket(Generic[Item]):
    """One waiting request."""

    __slots__ = ("_done", "_error", "item", "wait_until")

    def __init__(self, item: Item, wait_until: float) -> None:
        self.item = item
        self.wait_until = wait_until
        self._error: Exception | None = None
        self._done = threading.Lock()
        # A lock that is released by the committer: a fifth of the cost of an Event.
        self._done.acquire()

    def resolve(self, error: Exception | None) -> None:
        self._error = error
        self._done.release()

    def wait(self) -> None:
        if not self._done.acquire(timeout=max(0.0, self.wait_until - time.monotonic())):
            raise OutcomeUnknown("no answer in time")
        if self._error is not None:
            raise self._error


class GroupCommit(Generic[Item]):
    """Hands items to `commit` in batches, from one thread, which it starts when first used.

    `commit` makes a batch durable as a whole, or raises `NotCommitted` or `OutcomeUnknown`.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], None],
        *,
        deadline_seconds: float,
        batch_limit: int = 500,
    ) -> None:
        self._commit = commit
        self._deadline_seconds = deadline_seconds
        self._batch_limit = batch_limit
        self._waiting: queue.SimpleQueue[_Ticket[Item]] = queue.SimpleQueue()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, item: Item) -> None:
        """Return when the item is durable.

        :raises NotCommitted: if it is not, and leaves no trace
        :raises OutcomeUnknown: if there was no answer within the deadline
        """
        if self._thread is None or not self._thread.is_alive():
            self._start()
        ticket = _Ticket(item, time.monotonic() + self._deadline_seconds)
        self._waiting.put(ticket)
        ticket.wait()

    def _start(self) -> None:
        # Lazily, because a thread does not survive the fork that makes a web worker.
        with self._start_lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="group commit", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            batch = self._next_batch()
            # Once per batch, not per request: it is a look at a queue, and nobody waits for it.
            metrics.INTAKE_WAITING.set(len(batch) + self._waiting.qsize())
            self._commit_one_batch(batch)
            metrics.INTAKE_WAITING.set(self._waiting.qsize())

    def _next_batch(self) -> list[_Ticket[Item]]:
        batch = [self._waiting.get()]
        while len(batch) < self._batch_limit:
            try:
                batch.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return batch

    def _commit_one_batch(self, batch: list[_Ticket[Item]]) -> None:
        error: Exception | None = None
        # Who has given up was told 'unknown', and sending it now would make that an order nobody
        # waits for.
        now = time.monotonic()
        due = [ticket for ticket in batch if ticket.wait_until > now]
        try:
            if due:
                self._commit([ticket.item for ticket in due])
                metrics.INTAKE_BATCH.observe(len(due))
        except (NotCommitted, OutcomeUnknown) as raised:
            error = raised
        except Exception as raised:
            logger.exception("a batch of %d failed in an unexpected way", len(due))
            error = OutcomeUnknown(str(raised))
        for ticket in due:
            ticket.resolve(error)
