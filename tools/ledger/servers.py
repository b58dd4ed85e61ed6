"""Connections to everything that keeps state, and how it is read without filling the memory."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import amqp
import psycopg
import redis
import requests

from deploy.failure import DeployFailure
from servicekit.messaging.connections import BrokerUnavailable, close, connect
from servicekit.messaging.envelope import body_of

_T = TypeVar("_T")

BATCH = 1000
_CONNECT_TIMEOUT_SECONDS = 5
#: What is seen once may be about to change; what is seen twice, this far apart, is so.
LOOK_AGAIN_SECONDS = 0.3

UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_IS_UUID = f"order_id ~ '^{UUID}$'"
# Of a reservation. Whatever is no UUID in its usual form is another system's order
# (`contracts.fields.as_uuid`), and so is what the order service has never announced.
IS_OURS = f"({_IS_UUID} AND NOT is_foreign)"
# A cast that does not depend on which condition the planner tries first.
ORDER_UUID = f"CASE WHEN {_IS_UUID} THEN order_id::uuid END"


class Database:
    """One database, seen twice: as it is now, and as it was when the snapshot was taken."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.live = psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_SECONDS)
        self.snapshot = psycopg.connect(url, connect_timeout=_CONNECT_TIMEOUT_SECONDS)
        self.snapshot.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        self.snapshot.read_only = True

    def take_snapshot(self) -> None:
        """See the database as it is now, until the next snapshot."""
        self.snapshot.rollback()
        # The services' limit on the time of a statement is not meant for a look at everything.
        self.snapshot.execute("SET statement_timeout = 0")

    def one(self, query: str) -> tuple[Any, ...]:
        """Return the single row of a query on the snapshot."""
        row = self.snapshot.execute(query).fetchone()
        if row is None:
            raise LookupError(query)
        return tuple(row)

    def stream(self, query: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query on the snapshot, a few thousand in memory at a time."""
        with self.snapshot.cursor(name=f"ledger_{time.monotonic_ns()}") as cursor:
            cursor.itersize = 10_000
            cursor.execute(query, parameters or None)
            yield from cursor

    def now(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query on the database as it is at this moment."""
        return list(self.live.execute(query, parameters))

    def close(self) -> None:
        """Close both connections."""
        self.live.close()
        self.snapshot.close()


class Servers:
    """Connections to everything that keeps state."""

    def __init__(
        self,
        products: Database,
        orders: Database,
        cache: "redis.Redis",
        broker: Any,
        management_url: str | None,
    ) -> None:
        self.products = products
        self.orders = orders
        self.cache = cache
        self._broker = broker
        self._management_url = management_url

    @classmethod
    @contextmanager
    def connected(cls, addresses: Mapping[str, str]) -> Iterator["Servers"]:
        """Connect to all of them, or say in one sentence which does not answer."""
        with ExitStack() as opened:
            products, orders = (
                opened.enter_context(
                    closing(
                        _connected(
                            addresses,
                            f"{name.upper()}_DATABASE_URL",
                            Database,
                            f"PostgreSQL does not let us into the {name} database",
                        )
                    )
                )
                for name in ("products", "orders")
            )
            cache = _connected(addresses, "CACHE_URL", _cache, "Redis does not answer")
            opened.callback(cache.close)
            broker = _connected(addresses, "BROKER_URL", _broker, "RabbitMQ does not answer")
            opened.callback(close, broker)
            yield cls(products, orders, cache, broker, addresses.get("RABBITMQ_MANAGEMENT_URL"))

    def messages_in(self, queue: str) -> int | None:
        """Return how many messages a queue holds, or None when there is no such queue."""
        # A channel of its own for each look: the broker closes the one that asked for a queue
        # that does not exist.
        channel = self._broker.channel()
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except amqp.NotFound:
            return None
        finally:
            if channel.connection is not None:
                channel.close()

    def unacknowledged(self) -> int | None:
        """Return how many messages are in consumers' hands; None without the management API.

        AMQP itself does not tell.
        """
        if not self._management_url:
            return None
        virtual_host = quote(self._broker.virtual_host, safe="")
        with requests.Session() as http:
            http.trust_env = False
            # Counted now: the statistics of the other answers are up to five seconds old.
            answer = http.get(
                f"{self._management_url}/api/queues/{virtual_host}",
                params={"disable_stats": "true", "enable_queue_totals": "true"},
                timeout=_CONNECT_TIMEOUT_SECONDS,
            )
        answer.raise_for_status()
        return sum(int(queue.get("messages_unacknowledged", 0)) for queue in answer.json())

    def bodies_in(self, queue: str) -> Iterator[bytes]:
        """Yield the body of every message of a queue, and leave the messages in it."""
        channel = self._broker.channel()
        channel.auto_decode = False
        try:
            # No more than there are now: there may be new dead letters.
            for _ in range(self.messages_in(queue) or 0):
                message = channel.basic_get(queue)
                if message is None:
                    break
                yield body_of(message)
        finally:
            # Nothing was acknowledged, so all of it is put back in its place.
            channel.close()

    def cached_ids(self, prefix: str) -> Iterator[list[str]]:
        """Yield the ids that `<prefix>:<id>` is cached for, in batches; an id may come twice."""
        keys = self.cache.scan_iter(match=f"{prefix}:*", count=BATCH)
        found = (re.fullmatch(f"{prefix}:({UUID})", key.decode(errors="replace")) for key in keys)
        return in_batches(each[1] for each in found if each)

    def stored_orders(self, ids: list[str]) -> set[str]:
        """Return which of these orders are stored at this moment."""
        query = 'SELECT id::text FROM "order" WHERE id = ANY(%s::uuid[])'
        return {row[0] for row in self.orders.now(query, ids)}


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _connected(
    addresses: Mapping[str, str], name: str, connect_to: Callable[[str], _T], complaint: str
) -> _T:
    """Connect to what an address names, or raise one sentence that says why not."""
    url = addresses.get(name)
    if not url:
        raise DeployFailure(f"{name} is not set; `make env` prints the addresses in use.")
    try:
        return connect_to(url)
    except (psycopg.Error, redis.RedisError, BrokerUnavailable, OSError, ValueError) as error:
        place = urlsplit(url).netloc.rpartition("@")[2]
        raise DeployFailure(f"{complaint} at {place}: {one_line(error)}") from error


def _cache(url: str) -> "redis.Redis":
    cache = redis.Redis.from_url(
        url, socket_connect_timeout=_CONNECT_TIMEOUT_SECONDS, socket_timeout=10
    )
    cache.ping()
    return cache


def _broker(url: str) -> Any:
    return connect(url, timeout_seconds=_CONNECT_TIMEOUT_SECONDS)


def values(servers: Servers, keys: Iterable[str]) -> list[bytes | None]:
    """Return what Redis has under these keys."""
    answer: Any = servers.cache.mget(list(keys))
    return list(answer)


def side_by_side(
    left: Iterator[tuple[Any, ...]], right: Iterator[tuple[Any, ...]]
) -> Iterator[tuple[str, tuple[Any, ...] | None, tuple[Any, ...] | None]]:
    """Join two streams that are sorted by their first column: `(key, left, right)`, all of both.

    A key that one side has twice is given twice, the second time with nothing on the other side.
    """
    one, two = next(left, None), next(right, None)
    while one is not None or two is not None:
        key = min(row[0] for row in (one, two) if row is not None)
        mine = one if one is not None and one[0] == key else None
        theirs = two if two is not None and two[0] == key else None
        yield key, mine and mine[1:], theirs and theirs[1:]
        if mine is not None:
            one = next(left, None)
        if theirs is not None:
            two = next(right, None)


def in_batches(rows: Iterable[_T]) -> Iterator[list[_T]]:
    """Yield what there is as lists of at most `BATCH`."""
    left = iter(rows)
    while batch := list(islice(left, BATCH)):
        yield batch
