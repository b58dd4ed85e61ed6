"""Waiting until an order is final, without asking the database once per waiting request.

One thread per web process listens for the workers' word on Redis and wakes whoever waits for the
order. Now and then it looks for itself, once for all who wait: a word may be lost with Redis.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import msgspec
import redis
from django.conf import settings
from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connection,
)
from django_redis import get_redis_connection

from orders_project.orders import selectors
from orders_project.orders.cache import FINAL_CHANNEL
from orders_project.orders.commands import AcceptedOrder
from orders_project.orders.models import Order
from orders_project.orders.representation import OrderDetail
from servicekit.http import deadline
from servicekit.http.admission import aside
from servicekit.http.shutdown import on_shutdown

logger = logging.getLogger(__name__)

# How late a waiting request hears of an order whose word was lost.
_LOOK_EVERY_SECONDS = 1.0
# The thread stays for who comes next, and then lets go of its connection.
_LINGER_SECONDS = 5.0


class Waiter:
    """One waiting request."""

    def __init__(self) -> None:
        self._final = threading.Event()

    def wake(self) -> None:
        """Say that the order is final."""
        self._final.set()

    def wait(self, seconds: float) -> bool:
        """Return as soon as the order is final, or after so many seconds; whether it is."""
        # The request may have read something, and others need the connection meanwhile.
        connection.close_if_unusable_or_obsolete()
        with deadline.suspended(), aside():
            return self._final.wait(seconds)


class FinalStatusWatch:
    """Wakes requests when their orders are final; `limit` requests may wait at a time."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._waiting: defaultdict[UUID, list[Waiter]] = defaultdict(list)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        return self._count

    @contextmanager
    def waiter(self, order_id: UUID) -> Iterator[Waiter | None]:
        """Give a waiter that hears of everything from now on, or None when too many wait already.

        Take it before looking at the order, or the word may be spoken in between.
        """
        waiter = self._enter(order_id)
        try:
            yield waiter
        finally:
            if waiter is not None:
                self._leave(order_id, waiter)

    def _enter(self, order_id: UUID) -> Waiter | None:
        with self._changed:
            if self._count >= self._limit:
                return None
            waiter = Waiter()
            self._count += 1
            self._waiting[order_id].append(waiter)
            self._start()
            self._changed.notify()
            return waiter

    def _leave(self, order_id: UUID, waiter: Waiter) -> None:
        with self._changed:
            self._count -= 1
            self._waiting[order_id].remove(waiter)
            if not self._waiting[order_id]:
                del self._waiting[order_id]

    def close(self) -> None:
        """Let everybody go, with what they know by then, and let nobody in any more."""
        with self._changed:
            self._limit = 0
            for waiters in self._waiting.values():
                for waiter in waiters:
                    waiter.wake()

    def _start(self) -> None:
        # Lazily, because a thread does not survive the fork that makes a web worker.
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="final status", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._count:
                    self._changed.wait()
            try:
                self._listen()
            except (redis.RedisError, OSError) as error:
                logger.info("looking for final orders without Redis: %s", error)
                self._look()
                time.sleep(_LOOK_EVERY_SECONDS)
            except Exception:
                logger.exception("waiting for final orders starts again")
                time.sleep(_LOOK_EVERY_SECONDS)

    def _listen(self) -> None:
        """Wake who waits, until nobody has waited for a while.

        :raises RedisError: if Redis is away
        """
        with get_redis_connection("default").pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(FINAL_CHANNEL)
            look_at = 0.0
            someone_waited_at = time.monotonic()
            while time.monotonic() - someone_waited_at < _LINGER_SECONDS:
                if self._count:
                    someone_waited_at = time.monotonic()
                # At once after the subscription, for what was said before it.
                if time.monotonic() >= look_at:
                    self._look()
                    look_at = time.monotonic() + _LOOK_EVERY_SECONDS
                message: dict[str, Any] | None = channel.get_message(timeout=_LOOK_EVERY_SECONDS)
                if message is not None:
                    self._wake(map(UUID, message["data"].decode().split()))

    def _look(self) -> None:
        with self._changed:
            ids = list(self._waiting)
        if not ids:
            return
        try:
            self._wake(selectors.final_among(ids))
        except (DatabaseError, InterfaceError) as error:
            logger.info("cannot look for final orders: %s", error)
        finally:
            close_old_connections()

    def _wake(self, order_ids: Iterable[UUID]) -> None:
        with self._changed:
            for order_id in order_ids:
                # Not by index: that would make an entry for everybody's orders.
                for waiter in self._waiting.get(order_id, ()):
                    waiter.wake()


watch = FinalStatusWatch(limit=settings.WAITING_REQUESTS_LIMIT)
"""The one of this process."""
on_shutdown(watch.close)


class _Status(msgspec.Struct):
    status: str


def rendered_when_final(order_id: UUID, *, seconds: int) -> tuple[bytes, bool]:
    """Return an order as it is answered, after up to so many seconds if it is not final before.

    Also returns whether there was anybody to wait for it: with too many waiting already, the
    answer comes at once.

    :raises: as `selectors.get_rendered_order`
    """
    if not seconds:
        return selectors.get_rendered_order(order_id), True
    with watch.waiter(order_id) as waiter:
        order = selectors.get_rendered_order(order_id)
        if waiter is not None and not _is_final(order) and waiter.wait(seconds):
            order = selectors.get_rendered_order(order_id)
    return order, waiter is not None


def accepted_when_final(accepted: AcceptedOrder, *, seconds: int) -> tuple[bytes, bool]:
    """Do the same for an order that is accepted whatever happens while we wait."""
    try:
        return rendered_when_final(accepted.id, seconds=seconds)
    except (
        # Also this: its copy went with Redis, and the worker has not stored it yet.
        selectors.OrderNotFound,
        selectors.OrderNotVisibleYet,
        OperationalError,
        InterfaceError,
        deadline.DeadlineExceeded,
    ):
        return msgspec.json.encode(OrderDetail.of(accepted)), False


def _is_final(rendered: bytes) -> bool:
    return msgspec.json.decode(rendered, type=_Status).status != Order.Status.PENDING
