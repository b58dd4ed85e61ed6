"""Proves, across both databases, the broker and the caches, that no order and no unit went astray.

`python -m deploy.ledger` waits until the system is at rest and then compares what its parts say.
Nothing is changed. The large comparisons are made by the databases, or stream two sorted results
side by side, so a million orders need no more memory than ten.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import amqp
import psycopg
import redis

from deploy.console import table
from deploy.failure import DeployFailure
from servicekit.contracts.commands import PersistOrders
from servicekit.messaging.connections import BrokerUnavailable, close, connect
from servicekit.messaging.topology import dead_letter_queue_name
from servicekit.timestamps import rfc3339

QUEUES = (
    "product_order_queue",
    "product_cancellation_queue",
    "order_stock_queue",
    "order_product_queue",
    PersistOrders.queue,
    "products.tasks",
)
#: What an order's stock can have become, by the status of the order.
OUTCOMES_OF_STATUS = {
    "CONFIRMED": ("RESERVED",),
    "REJECTED": ("REJECTED",),
    # Cancelled after its stock was decided either way, or before.
    "CANCELLED": ("RELEASED", "REJECTED", "CANCELLED"),
}
#: The first page of a list of orders.
PAGE_SIZE = 50

_EXAMPLES = 5
_BATCH = 1000
_CONNECT_TIMEOUT_SECONDS = 5
_LOOK_AGAIN_SECONDS = 0.3

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# Whatever is no UUID in its usual form is another system's order (`contracts.fields.as_uuid`).
_IS_OURS = f"order_id ~ '^{_UUID}$'"
# A cast that does not depend on which condition the planner tries first.
_ORDER_UUID = f"CASE WHEN {_IS_OURS} THEN order_id::uuid END"


@dataclass
class Check:
    """One comparison: what was compared, and the differences that were found."""

    name: str
    compared: str = ""
    is_note: bool = False
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def differs(self, what: str, *, times: int = 1) -> None:
        """Record a difference; only the first few are kept, all are counted."""
        self.count += times
        if len(self.examples) < _EXAMPLES:
            self.examples.append(what)

    @property
    def verdict(self) -> str:
        """`ok`, `DIFFERS`, or `note` for what is worth knowing and not wrong."""
        if self.is_note:
            return "note" if self.count else "ok"
        return "DIFFERS" if self.count else "ok"


@dataclass
class Report:
    """What the ledger found."""

    checks: list[Check] = field(default_factory=list)

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Name, numbers and verdict of each check."""
        return [(check.name, check.compared, check.verdict) for check in self.checks]

    @property
    def differences(self) -> list[str]:
        """What differs, in sentences: up to five for each check; empty when all is well."""
        return [
            f"{check.name}: {example}"
            for check in self.checks
            if not check.is_note
            for example in check.examples
        ]

    def add(self, name: str, *, is_note: bool = False) -> Check:
        """Begin a check."""
        self.checks.append(Check(name, is_note=is_note))
        return self.checks[-1]

    def __str__(self) -> str:
        heading, *lines = table([("check", "compared", "result"), *self.rows]).splitlines()
        text = [heading]
        for line, check in zip(lines, self.checks, strict=True):
            text.append(line)
            text += [f"    {example}" for example in check.examples]
            # Counted, but not kept as an example.
            if check.examples and check.count > len(check.examples):
                text.append(f"    … and {check.count - len(check.examples):,} more")
        return "\n".join(text)


def check_ledger(
    addresses: Mapping[str, str],
    *,
    wait_seconds: float = 60,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Wait for the system to come to rest, at most `wait_seconds`, then compare its parts.

    `addresses` has `PRODUCTS_DATABASE_URL`, `ORDERS_DATABASE_URL`, `BROKER_URL`, `CACHE_URL`.
    `progress` hears what is being waited for.

    :raises DeployFailure: if an address is missing, or a server does not answer
    """
    report = Report()
    with _Servers.connected(addresses) as servers:
        try:
            _check_rest(report, servers, wait_seconds, progress)
            progress("comparing")
            _check_statuses(report, servers)
            _check_stock(report, servers)
            _check_units(report, servers)
            _check_rows(report, servers)
            _check_movements(report, servers)
            _check_refusals(report, servers)
            _check_prices(report, servers)
            _check_outboxes(report, servers)
            _check_queues(report, servers)
            _check_cached_products(report, servers)
            _check_cached_lists(report, servers)
            _check_accepted_copies(report, servers)
        except (psycopg.OperationalError, redis.RedisError, amqp.AMQPError, OSError) as error:
            raise DeployFailure(
                f"A server went away while the ledger was being checked: {_one_line(error)}"
            ) from error
    return report


class _Database:
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

    def stream(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query on the snapshot, a few thousand in memory at a time."""
        with self.snapshot.cursor(name=f"ledger_{time.monotonic_ns()}") as cursor:
            cursor.itersize = 10_000
            cursor.execute(query)
            yield from cursor

    def now(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query on the database as it is at this moment."""
        return list(self.live.execute(query, parameters))

    def close(self) -> None:
        self.live.close()
        self.snapshot.close()


class _Servers:
    """Connections to everything that keeps state."""

    def __init__(
        self, products: _Database, orders: _Database, cache: "redis.Redis", broker: Any
    ) -> None:
        self.products = products
        self.orders = orders
        self.cache = cache
        self._broker = broker
        self._open = ExitStack()

    @classmethod
    def connected(cls, addresses: Mapping[str, str]) -> Self:
        """Connect to all of them, or say in one sentence which does not answer."""
        with ExitStack() as opened:
            products = _database(addresses, "PRODUCTS_DATABASE_URL", "products")
            opened.callback(products.close)
            orders = _database(addresses, "ORDERS_DATABASE_URL", "orders")
            opened.callback(orders.close)
            cache = _cache(addresses)
            opened.callback(cache.close)
            broker = _broker(addresses)
            opened.callback(close, broker)
            servers = cls(products, orders, cache, broker)
            servers._open = opened.pop_all()
        return servers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

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

    def cached_ids(self, prefix: str) -> Iterator[list[str]]:
        """Yield the ids that `<prefix>:<id>` is cached for, in batches; an id may come twice."""
        wanted = re.compile(rf"{prefix}:({_UUID})")
        batch: list[str] = []
        for key in self.cache.scan_iter(match=f"{prefix}:*", count=_BATCH):
            if found := wanted.fullmatch(key.decode(errors="replace")):
                batch.append(found.group(1))
            if len(batch) == _BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def stored_orders(self, ids: list[str]) -> set[str]:
        """Return which of these orders are stored at this moment."""
        query = 'SELECT id::text FROM "order" WHERE id = ANY(%s::uuid[])'
        return {row[0] for row in self.orders.now(query, ids)}


def _address(addresses: Mapping[str, str], name: str) -> str:
    if not addresses.get(name):
        raise DeployFailure(f"{name} is not set; `make env` prints the addresses in use.")
    return addresses[name]


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _database(addresses: Mapping[str, str], name: str, title: str) -> _Database:
    url = _address(addresses, name)
    try:
        return _Database(url)
    except psycopg.Error as error:
        raise DeployFailure(
            f"PostgreSQL does not let us into the {title} database at {_place(url)}: "
            f"{_one_line(error)}"
        ) from error


def _cache(addresses: Mapping[str, str]) -> "redis.Redis":
    url = _address(addresses, "CACHE_URL")
    try:
        cache = redis.Redis.from_url(
            url, socket_connect_timeout=_CONNECT_TIMEOUT_SECONDS, socket_timeout=10
        )
        cache.ping()
    except (redis.RedisError, OSError, ValueError) as error:
        raise DeployFailure(
            f"Redis does not answer at {_place(url)}: {_one_line(error)}"
        ) from error
    return cache


def _broker(addresses: Mapping[str, str]) -> Any:
    url = _address(addresses, "BROKER_URL")
    try:
        return connect(url, timeout_seconds=_CONNECT_TIMEOUT_SECONDS)
    except BrokerUnavailable as error:
        raise DeployFailure(
            f"RabbitMQ does not answer at {_place(url)}: {_one_line(error)}"
        ) from error


def _check_rest(
    report: Report, servers: _Servers, wait_seconds: float, progress: Callable[[str], None]
) -> None:
    """Wait until nothing moves, and take the two snapshots that everything is compared on."""
    check = report.add("the system is at rest")
    started = time.monotonic()
    while True:
        unrest = _unrest(servers)
        if not unrest:
            # Once is not enough: a message in a consumer's hands is in no queue's count.
            time.sleep(_LOOK_AGAIN_SECONDS)
            unrest = _unrest(servers)
        servers.orders.take_snapshot()
        before = servers.orders.one(_ORDERS_MARK)
        servers.products.take_snapshot()
        servers.products.one("SELECT 1")
        # Nothing connects the two snapshots but this: no order came or was settled in between.
        if not unrest and servers.orders.now(_ORDERS_MARK) != [before]:
            unrest = ["orders are still being placed"]
        waited = time.monotonic() - started
        if not unrest or waited >= wait_seconds:
            break
        progress(f"waiting for {', '.join(unrest)} ({waited:.0f} s)")
        time.sleep(_LOOK_AGAIN_SECONDS)
    check.compared = f"waited {waited:.1f} s"
    for what in unrest:
        check.differs(what)


_ORDERS_MARK = 'SELECT count(*), max(settled_at), max(cancelled_at), max(released_at) FROM "order"'


def _unrest(servers: _Servers) -> list[str]:
    """Return what keeps the system from being at rest, in words."""
    [(pending,)] = servers.orders.now("""SELECT count(*) FROM "order" WHERE status = 'PENDING'""")
    events = sum(
        database.now("SELECT count(*) FROM outbox_event")[0][0]
        for database in (servers.orders, servers.products)
    )
    messages = sum(servers.messages_in(queue) or 0 for queue in QUEUES)
    unrest = [
        f"{count:,} {what}"
        for count, what in (
            (pending, "pending orders"),
            (events, "events in the outboxes"),
            (messages, "messages in the queues"),
        )
        if count
    ]
    if not unrest:
        # An accepted order that a worker has in hand is in no table and in no queue's count.
        unstored = sum(
            len(set(ids) - servers.stored_orders(ids)) for ids in servers.cached_ids("order")
        )
        if unstored:
            unrest.append(f"{unstored:,} accepted orders to be stored")
    return unrest


def _check_statuses(report: Report, servers: _Servers) -> None:
    check = report.add("every order is final")
    total, unfinished = servers.orders.one(
        """SELECT count(*), count(*) FILTER (WHERE status = 'PENDING') FROM "order" """
    )
    check.compared = f"{total:,} orders"
    if unfinished:
        query = """
            SELECT id, created_at FROM "order" WHERE status = 'PENDING'
            ORDER BY id
        """
        for order_id, created_at in servers.orders.stream(query):
            check.differs(f"order {order_id} is PENDING since {rfc3339(created_at)}")


def _check_stock(report: Report, servers: _Servers) -> None:
    explained = report.add("stock = sum of its movements")
    products, movements = servers.products.one(
        "SELECT (SELECT count(*) FROM product), (SELECT count(*) FROM stock_movement)"
    )
    explained.compared = f"{products:,} products, {movements:,} movements"
    query = """
        SELECT p.id, p.qty, coalesce(m.total, 0)
        FROM product p
        LEFT JOIN (SELECT product_id, sum(delta) AS total FROM stock_movement GROUP BY 1) m
            ON m.product_id = p.id
        WHERE p.qty <> coalesce(m.total, 0)
        ORDER BY p.id
    """
    for product_id, qty, total in servers.products.stream(query):
        explained.differs(f"product {product_id} has {qty:,}, its movements sum to {total:,}")

    negative = report.add("no stock is below zero")
    negative.compared = f"{products:,} products"
    for product_id, qty in servers.products.stream(
        "SELECT id, qty FROM product WHERE qty < 0 ORDER BY id"
    ):
        negative.differs(f"product {product_id} has {qty:,}")


def _check_units(report: Report, servers: _Servers) -> None:
    check = report.add("units taken = units confirmed")
    taken = servers.products.stream(
        f"""
        SELECT product_id::text, -sum(delta) FROM stock_movement
        WHERE order_id <> '' AND {_IS_OURS} GROUP BY product_id ORDER BY product_id
        """
    )
    confirmed = servers.orders.stream(
        """
        SELECT product_id::text, sum(quantity) FROM "order"
        WHERE status = 'CONFIRMED' GROUP BY product_id ORDER BY product_id
        """
    )
    units = products = 0
    for product_id, stock, sold in _side_by_side(taken, confirmed):
        left, right = (int(one[0]) if one else 0 for one in (stock, sold))
        units += right
        products += 1
        if left != right:
            check.differs(f"product {product_id}: {left:,} units taken, {right:,} confirmed")
    check.compared = f"{units:,} units of {products:,} products"


def _check_rows(report: Report, servers: _Servers) -> None:
    check = report.add("orders = reservations, row by row")
    orders = servers.orders.stream(
        'SELECT id::text, product_id::text, quantity, status FROM "order" ORDER BY id'
    )
    reservations = servers.products.stream(
        f"""
        SELECT ({_ORDER_UUID})::text, product_id::text, quantity, outcome, order_id
        FROM reservation WHERE {_IS_OURS} ORDER BY ({_ORDER_UUID})
        """
    )
    compared = [0, 0]
    for order_id, order, reservation in _side_by_side(orders, reservations):
        compared[0] += order is not None
        compared[1] += reservation is not None
        if order is None and reservation is not None:
            check.differs(f"reservation {reservation[3]} ({reservation[2]}) has no order")
        elif reservation is None and order is not None:
            # A pending order is undecided by right; that it is pending is another check's matter.
            if order[2] != "PENDING":
                check.differs(f"order {order_id} ({order[2]}) has no reservation")
        elif order is not None and reservation is not None:
            _compare_decision(check, order_id, order, reservation)
    check.compared = f"{compared[0]:,} orders, {compared[1]:,} reservations"

    foreign = report.add("reservations of other order systems", is_note=True)
    count, units = servers.products.one(
        f"""
        SELECT count(*), coalesce(sum(quantity) FILTER (WHERE outcome = 'RESERVED'), 0)
        FROM reservation WHERE NOT ({_IS_OURS})
        """
    )
    foreign.compared = f"{count:,} reservations, {units:,} units"
    foreign.count = count


def _compare_decision(
    check: Check, order_id: str, order: Sequence[Any], reservation: Sequence[Any]
) -> None:
    product_id, quantity, status = order
    if (product_id, quantity) != tuple(reservation[:2]):
        check.differs(
            f"order {order_id} is {quantity:,} of {product_id}, "
            f"its reservation {reservation[1]:,} of {reservation[0]}"
        )
    elif status != "PENDING" and reservation[2] not in OUTCOMES_OF_STATUS[status]:
        check.differs(f"order {order_id} is {status}, its reservation {reservation[2]}")


def _check_movements(report: Report, servers: _Servers) -> None:
    check = report.add("each reservation moved its units")
    reserved, moved = servers.products.one(
        """
        SELECT (SELECT count(*) FROM reservation WHERE outcome IN ('RESERVED', 'RELEASED')),
               (SELECT count(*) FROM stock_movement WHERE order_id <> '')
        """
    )
    check.compared = f"{reserved:,} reservations, {moved:,} movements"
    # One movement takes the units, a second one gives them back.
    query = """
        SELECT coalesce(r.order_id, m.order_id), r.outcome, r.quantity,
               coalesce(m.times, 0), coalesce(m.total, 0)
        FROM (
            SELECT *, CASE outcome WHEN 'RESERVED' THEN 1 ELSE 2 END AS times,
                   CASE outcome WHEN 'RESERVED' THEN -quantity ELSE 0 END AS total
            FROM reservation WHERE outcome IN ('RESERVED', 'RELEASED')
        ) r
        FULL JOIN (
            SELECT order_id, count(*) AS times, sum(delta) AS total,
                   min(product_id::text) AS first_product, max(product_id::text) AS last_product
            FROM stock_movement WHERE order_id <> '' GROUP BY order_id
        ) m ON m.order_id = r.order_id
        WHERE r.order_id IS NULL OR m.order_id IS NULL
           OR m.times <> r.times OR m.total <> r.total
           OR r.product_id::text NOT IN (m.first_product) OR m.first_product <> m.last_product
        ORDER BY 1
    """
    for order_id, outcome, quantity, times, total in servers.products.stream(query):
        if quantity is None:
            check.differs(f"order {order_id} has {times} movements and no units reserved")
        elif (times, total) in ((1, -quantity), (2, 0)):
            check.differs(
                f"a movement of order {order_id} is of another product, or not as {outcome} says"
            )
        else:
            check.differs(
                f"order {order_id} has {quantity:,} units {outcome.lower()}, "
                f"and {times} movements of {total:,} in total"
            )


def _check_refusals(report: Report, servers: _Servers) -> None:
    check = report.add("no order refused while there was stock")
    [rejected] = servers.products.one("SELECT count(*) FROM reservation WHERE outcome = 'REJECTED'")
    check.compared = f"{rejected:,} rejected reservations"
    query = """
        SELECT order_id, quantity, stock_before FROM reservation
        WHERE outcome = 'REJECTED' AND reason = 'insufficient_stock' AND quantity <= stock_before
        ORDER BY order_id
    """
    for order_id, quantity, stock in servers.products.stream(query):
        check.differs(f"order {order_id} of {quantity:,} was refused with {stock:,} in stock")

    # Whether the product came before the order is known only with the order's own time.
    suspects = servers.products.stream(
        f"""
        SELECT ({_ORDER_UUID})::text, r.order_id, p.id, p.created_at, r.created_at
        FROM reservation r JOIN product p ON p.id = r.product_id
        WHERE r.outcome = 'REJECTED' AND r.reason = 'product_not_found'
        ORDER BY r.order_id
        """
    )
    for batch in _in_batches(suspects):
        placed = dict(
            servers.orders.now(
                'SELECT id::text, created_at FROM "order" WHERE id = ANY(%s::uuid[])',
                [row[0] for row in batch if row[0] is not None],
            )
        )
        for order_uuid, order_id, product_id, product_since, decided_at in batch:
            if product_since < placed.get(order_uuid, decided_at):
                check.differs(
                    f"order {order_id} was refused for want of product {product_id}, "
                    f"which is there since {rfc3339(product_since)}"
                )


def _check_prices(report: Report, servers: _Servers) -> None:
    check = report.add("total price = quantity x a price")
    orders, total = servers.orders.one(
        'SELECT count(*), coalesce(sum(total_price), 0) FROM "order"'
    )
    check.compared = f"{orders:,} orders of {total:,} in total"
    query = """
        SELECT id, quantity, total_price FROM "order"
        WHERE total_price <= 0 OR total_price % quantity <> 0 ORDER BY id
    """
    for order_id, quantity, total_price in servers.orders.stream(query):
        check.differs(f"order {order_id}: {quantity:,} units for {total_price:,}")


def _check_outboxes(report: Report, servers: _Servers) -> None:
    for name, database in (("products", servers.products), ("orders", servers.orders)):
        check = report.add(f"outbox of {name} is empty")
        query = "SELECT routing_key, correlation_id, last_outcome FROM outbox_event ORDER BY id"
        for routing_key, correlation_id, outcome in database.stream(query):
            check.differs(f"{routing_key} of {correlation_id} waits ({outcome or 'not sent yet'})")
        check.compared = f"{check.count:,} events"


def _check_queues(report: Report, servers: _Servers) -> None:
    check = report.add("queues are empty")
    check.compared = f"{len(QUEUES)} queues"
    parked = report.add("messages parked as unreadable", is_note=True)
    total = 0
    for queue in QUEUES:
        messages = servers.messages_in(queue)
        if messages is None:
            check.differs(f"there is no queue {queue}")
        elif messages:
            check.differs(f"{queue} holds {messages:,} messages")
        dead = dead_letter_queue_name(queue)
        if buried := servers.messages_in(dead):
            total += buried
            parked.differs(f"{dead} holds {buried:,} messages")
    for database in (servers.products, servers.orders):
        query = "SELECT queue, count(*) FROM parked_message WHERE status = 'PARKED' GROUP BY queue"
        for queue, count in database.stream(query):
            total += count
            parked.differs(f"{count:,} messages from {queue} wait for a decision in the admin")
    parked.compared = f"{total:,} messages"


def _check_cached_products(report: Report, servers: _Servers) -> None:
    check = report.add("cached products = database")
    query = """
        SELECT id::text, name, price, qty, created_at, version FROM product
        WHERE id = ANY(%s::uuid[]) AND archived_at IS NULL
    """

    def differing(ids: Sequence[str]) -> dict[str, str]:
        # Redis first: what is committed after it was read is newer than the copy, and then the
        # second look decides.
        cached = _values(servers, [f"product:{one}" for one in ids])
        versions = _values(servers, [f"product:{one}:version" for one in ids])
        rows = {row[0]: row[1:] for row in servers.products.now(query, list(ids))}
        found: dict[str, str] = {}
        for product_id, body, version in zip(ids, cached, versions, strict=True):
            if body is None:
                continue
            if product_id not in rows:
                found[product_id] = "is cached and not sold"
                continue
            name, price, qty, created_at, row_version = rows[product_id]
            expected = {
                "id": product_id,
                "name": name,
                "price": price,
                "qty": qty,
                "createdAt": rfc3339(created_at),
            }
            if _decoded(body) != expected:
                found[product_id] = (
                    f"is cached as {_short(body)}, stored as {_short(json.dumps(expected))}"
                )
            elif version != str(row_version).encode():
                found[product_id] = (
                    f"is cached as version {_short(version)}, stored as version {row_version}"
                )
        return found

    _compare_cached(check, servers, "product", "copies", differing)


def _check_cached_lists(report: Report, servers: _Servers) -> None:
    check = report.add("cached order lists = database")
    query = f"""
        SELECT wanted.id::text, o.id::text, o.quantity, o.total_price, o.status, o.created_at
        FROM unnest(%s::uuid[]) AS wanted (id)
        CROSS JOIN LATERAL (
            SELECT * FROM "order" WHERE product_id = wanted.id
            ORDER BY created_at DESC, id DESC LIMIT {PAGE_SIZE}
        ) o
        ORDER BY wanted.id, o.created_at DESC, o.id DESC
    """

    def differing(ids: Sequence[str]) -> dict[str, str]:
        cached = _values(servers, [f"orders:{one}" for one in ids])
        pages: dict[str, list[dict[str, Any]]] = {one: [] for one in ids}
        for row in servers.orders.now(query, list(pages)):
            pages[row[0]].append(
                {
                    "id": row[1],
                    "productId": row[0],
                    "quantity": row[2],
                    "totalPrice": row[3],
                    "status": row[4],
                    "createdAt": rfc3339(row[5]),
                }
            )
        return {
            product_id: f"has a cached list that {_unlike(_decoded(body), pages[product_id])}"
            for product_id, body in zip(ids, cached, strict=True)
            if body is not None and _decoded(body) != pages[product_id]
        }

    _compare_cached(check, servers, "orders", "lists", differing)


def _unlike(cached: object, stored: Sequence[Mapping[str, Any]]) -> str:
    """Say how a cached list differs from the one of the database."""
    if not isinstance(cached, list):
        return "is no JSON array"
    if len(cached) != len(stored):
        return f"has {len(cached)} orders, not {len(stored)}"
    at, copy, row = next(
        (at, copy, row)
        for at, (copy, row) in enumerate(zip(cached, stored, strict=True), start=1)
        if copy != row
    )
    return f"has as order {at} {_short(json.dumps(copy))}, not {_short(json.dumps(row))}"


def _compare_cached(
    check: Check,
    servers: _Servers,
    prefix: str,
    what: str,
    differing: Callable[[Sequence[str]], dict[str, str]],
) -> None:
    """Compare all that is cached under a prefix, and look twice at what differs."""
    copies = 0
    for ids in servers.cached_ids(prefix):
        copies += len(ids)
        if suspects := differing(ids):
            # A copy is written after the commit; it may differ for the moment in between.
            time.sleep(_LOOK_AGAIN_SECONDS)
            for product_id, how in differing(list(suspects)).items():
                seconds = servers.cache.ttl(f"{prefix}:{product_id}")
                check.differs(f"product {product_id} {how} (expires in {seconds} s)")
    check.compared = f"{copies:,} {what}"


def _check_accepted_copies(report: Report, servers: _Servers) -> None:
    check = report.add("no copies of accepted orders are left")
    copies = 0
    for ids in servers.cached_ids("order"):
        copies += len(ids)
        # Two looks: the copy is dropped after the commit that stores the order.
        time.sleep(_LOOK_AGAIN_SECONDS)
        left = _values(servers, [f"order:{one}" for one in ids])
        stored = servers.stored_orders(ids)
        for order_id, copy in zip(ids, left, strict=True):
            if copy is None:
                continue
            if order_id in stored:
                seconds = servers.cache.ttl(f"order:{order_id}")
                check.differs(
                    f"order:{order_id} is still there, and the order is stored "
                    f"(expires in {seconds:,} s)"
                )
            else:
                check.differs(f"order:{order_id} was accepted, and the order is not stored")
    check.compared = f"{copies:,} copies"


def _values(servers: _Servers, keys: Iterable[str]) -> list[bytes | None]:
    values: Any = servers.cache.mget(list(keys))
    return list(values)


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return body


def _short(text: str | bytes | None) -> str:
    if text is None:
        return "nothing"
    if isinstance(text, bytes):
        text = text.decode(errors="backslashreplace")
    # What is cached is not ours alone to write: a terminal must not be steered by it.
    text = "".join(one if one.isprintable() else "�" for one in text)
    longest = 240
    return text if len(text) <= longest else f"{text[:longest]}…"


def _side_by_side(
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


def _in_batches(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    batch: list[tuple[Any, ...]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class _ProgressLine:
    """One line on the terminal that is written over; nothing where there is no terminal."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()

    def say(self, what: str) -> None:
        if self._is_shown:
            print(f"\r\033[K  … {what}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the ledger; return 0 when all agrees, 1 when something differs, 2 without a server."""
    parser = argparse.ArgumentParser(prog="python -m deploy.ledger", description=__doc__)
    parser.add_argument(
        "--wait",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long to wait for the system to come to rest (default: 60)",
    )
    options = parser.parse_args(arguments)
    line = _ProgressLine()
    try:
        report = check_ledger(os.environ, wait_seconds=options.wait, progress=line.say)
    except DeployFailure as failure:
        line.clear()
        print(failure, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        line.clear()
        return 130
    line.clear()
    print(report)
    differing = sum(check.verdict == "DIFFERS" for check in report.checks)
    print(f"\n{differing} of {len(report.rows)} checks differ." if differing else "\nAll agrees.")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
