"""Group commit: requests that wait at the same time share one trip to where they become durable.

A batch is whatever arrived while the batch before it was on its way, or within the pace: one
request alone waits for nobody, and a hundred at once cost little more than one.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from orders_project.orders.placement.durability import Outcome
from servicekit import metrics
from servicekit.http import deadline
from servicekit.http.deadline import DeadlineExceeded

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class _Ticket(Generic[Item]):
    """One waiting request."""

    __slots__ = ("_done", "_outcome", "item", "wait_until")

    def __init__(self, item: Item, wait_until: float) -> None:
        self.item = item
        self.wait_until = wait_until
        self._outcome = Outcome.UNKNOWN
        # Released by the committer: a fifth of the cost of an Event.
        self._done = threading.Lock()
        self._done.acquire()

    def resolve(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._done.release()

    def wait(self) -> Outcome:
        if deadline.is_enforced():
            # A timer of its own would cost as much as the rest of the waiting.
            try:
                self._done.acquire()
            except DeadlineExceeded:
                self.wait_until = 0.0
        else:
            self._done.acquire(timeout=max(0.0, self.wait_until - time.monotonic()))
        return self._outcome


class GroupCommit(Generic[Item]):
    """Hands items to `commit` in batches, from one thread, which it starts when first used.

    A batch starts at most every `pace_seconds`, and at once after a pause.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Outcome],
        *,
        pace_seconds: float = 0.0,
        batch_limit: int = 500,
    ) -> None:
        self._commit = commit
        self._pace_seconds = pace_seconds
        self._batch_limit = batch_limit
        self._waiting: queue.SimpleQueue[_Ticket[Item]] = queue.SimpleQueue()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, item: Item, *, timeout_seconds: float) -> Outcome:
        """Return what became of the item; UNKNOWN if there is no answer in time."""
        if self._thread is None:
            self._start()
        ticket = _Ticket(item, time.monotonic() + timeout_seconds)
        self._waiting.put(ticket)
        return ticket.wait()

    def _start(self) -> None:
        # Lazily, because a thread does not survive the fork that makes a web worker.
        with self._start_lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run_until_it_dies, name="group commit", daemon=True
                )
                self._thread.start()

    def _run_until_it_dies(self) -> None:
        try:
            self._run()
        finally:
            # The next request starts another; asking it each time costs more than waiting for it.
            self._thread = None

    def _run(self) -> None:
        started_at = 0.0
        while True:
            batch = [self._waiting.get()]
            early_seconds = started_at + self._pace_seconds - time.monotonic()
            if early_seconds > 0:
                time.sleep(early_seconds)
            while len(batch) < self._batch_limit and not self._waiting.empty():
                batch.append(self._waiting.get())
            started_at = time.monotonic()
            # Once per batch, not per request: it is a look at a queue, and nobody waits for it.
            metrics.INTAKE_WAITING.set(len(batch) + self._waiting.qsize())
            self._commit_batch(batch)
            metrics.INTAKE_WAITING.set(self._waiting.qsize())

    def _commit_batch(self, batch: list[_Ticket[Item]]) -> None:
        # Who has given up was told 'unknown', and sending it now would make that an order nobody
        # waits for.
        now = time.monotonic()
        due = [ticket for ticket in batch if ticket.wait_until > now]
        for ticket in batch:
            if ticket.wait_until <= now:
                # It may wait all the same: whose time is over before it comes here has no other
                # end, where psycopg's pool has taken the end of the time for a broken connection.
                ticket.resolve(Outcome.NOWHERE)
        if not due:
            return
        try:
            outcome = self._commit([ticket.item for ticket in due])
        except Exception:
            logger.exception("a batch of %d failed in an unexpected way", len(due))
            outcome = Outcome.UNKNOWN
        metrics.INTAKE_BATCH.observe(len(due))
        for ticket in due:
            ticket.resolve(outcome)
