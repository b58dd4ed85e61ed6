"""What the order service keeps in Redis.

`orders:{productId}`: the first page of a product's orders, as it is answered.
`order:{id}`: an order that is accepted and not stored yet, as it is answered.
`orders.accepted`: the keys of those copies, by the time at which they were written.
`order:{id}:first`: an order with an `Idempotency-Key`, as the first attempt of it is stored.
`orders.since`: which server keeps all this, and since when it has lost nothing, a Unix time.
The channel `orders.final` says which orders have got a final status.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from orders_project.orders.commands import AcceptedOrder
from orders_project.orders.generational_cache import GenerationalCache, RenderedPage
from orders_project.orders.representation import OrderDetail
from servicekit.caching.redis import (
    UNAVAILABLE,
    Script,
    Unavailable,
    best_effort,
    invalidate_when_back,
)

# What a write that Redis missed can cost: a list this old.
LIST_TTL_SECONDS = 30
# A claim is written before its order is safe. If we die in between, it must not stay for long.
OFFERED_TTL_SECONDS = 20
# Copies are deleted when their order is stored. This is for the worst backlog.
ACCEPTED_TTL_SECONDS = 24 * 3600
# How long before PostgreSQL goes away an order may have been stored, to be known all the same.
FIRST_TTL_SECONDS = 3600

FINAL_CHANNEL = "orders.final"
_ACCEPTED = "orders.accepted"
_SINCE = "orders.since"
_SINCE_TTL_SECONDS = 30 * 24 * 3600

_lists = GenerationalCache("orders", ttl_seconds=LIST_TTL_SECONDS)


def first_page(product_id: UUID, render: Callable[[], RenderedPage]) -> RenderedPage:
    """Return the first page of a product's orders, rendered anew when it is not cached."""
    return _lists.get_or_render(product_id, render)


def peek_first_page(product_id: UUID) -> RenderedPage | None:
    """Return the first page of a product's orders if it is cached; who misses it, asks again."""
    return _lists.peek(product_id)


def forget_lists(product_ids: Iterable[UUID]) -> None:
    """Drop the lists of products whose orders have changed."""
    _lists.drop(set(product_ids))


_KEEP_COPIES = Script(
    b"""
    local added = {}
    for i = 2, #KEYS do
        -- A copy that is there already is of the first attempt with an Idempotency-Key.
        redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', ARGV[1], 'NX')
        added[#added + 1] = ARGV[2]
        added[#added + 1] = KEYS[i]
    end
    redis.call('ZADD', KEYS[1], unpack(added))
    """
)
_DROP_COPIES = Script(
    b"""
    redis.call('UNLINK', unpack(KEYS, 2))
    redis.call('ZREM', KEYS[1], unpack(KEYS, 2))
    """
)


def keep_copies(orders: Sequence[AcceptedOrder]) -> bool:
    """Make orders visible that are about to be accepted; return whether they are for sure.

    Before they are handed over: who stores an order drops its copy, and may be faster than we are.
    """
    keys = [_ACCEPTED, *(_copy(order.id) for order in orders)]
    copies = [msgspec.json.encode(OrderDetail.of(order)) for order in orders]
    args = [ACCEPTED_TTL_SECONDS, int(time.time()), *copies]
    return best_effort(lambda client: _KEEP_COPIES(client, keys=keys, args=args)) is not UNAVAILABLE


def forget_accepted(order_ids: Iterable[UUID]) -> None:
    """Drop the copies of orders that are stored now, or were not accepted."""
    keys = [_ACCEPTED, *map(_copy, order_ids)]
    if len(keys) > 1:
        answer = best_effort(lambda client: _DROP_COPIES(client, keys=keys, args=[]))
        if answer is UNAVAILABLE:
            invalidate_when_back(keys[1:])


def accepted_longer_than(seconds: int, *, limit: int) -> list[AcceptedOrder]:
    """Return orders whose copies have not been dropped for so long, the oldest first."""

    def look(client: Any) -> list[AcceptedOrder]:
        before = int(time.time()) - seconds
        keys = client.zrange(_ACCEPTED, "-inf", before, byscore=True, offset=0, num=limit)
        if not keys:
            return []
        orders = [_read(copy) for copy in client.mget(keys)]
        gone = [key for key, order in zip(keys, orders, strict=True) if order is None]
        if gone:
            client.zrem(_ACCEPTED, *gone)
        return [order for order in orders if order is not None]

    orders = best_effort(look)
    return [] if orders is UNAVAILABLE else orders


def oldest_accepted_at() -> float | Unavailable | None:
    """Return since when (Unix time) the oldest of the accepted orders waits to be stored."""
    found = best_effort(lambda client: client.zrange(_ACCEPTED, 0, 0, withscores=True))
    return found if found is UNAVAILABLE else found[0][1] if found else None


def remembers_seconds() -> float:
    """Return for how long Redis has lost nothing, for all we know: 0 if it does not answer."""

    def look(client: Any) -> float:
        now, server = int(time.time()), client.info("server")["run_id"]
        known, _, since = (client.get(_SINCE) or b"").decode("latin-1").partition(" ")
        if known == server and since.isdecimal():
            return now - int(since)
        # Emptied, or started again, perhaps with what it had an hour ago.
        client.set(_SINCE, f"{server} {now}", ex=_SINCE_TTL_SECONDS)
        return 0.0

    seconds = best_effort(look)
    return 0.0 if seconds is UNAVAILABLE else seconds


def claim_firsts(orders: Sequence[AcceptedOrder]) -> list[AcceptedOrder] | Unavailable:
    """Note each order as the first under its id, unless there is one; return the first of each."""

    def claim(client: Any) -> list[bytes | None]:
        with client.pipeline(transaction=False) as pipeline:
            for order in orders:
                copy = msgspec.json.encode(order)
                pipeline.set(_first(order.id), copy, ex=OFFERED_TTL_SECONDS, nx=True, get=True)
            answers: list[bytes | None] = pipeline.execute()
            return answers

    earlier = best_effort(claim)
    if earlier is UNAVAILABLE:
        return UNAVAILABLE
    return [_read(copy) or order for order, copy in zip(orders, earlier, strict=True)]


def keep_firsts(orders: Sequence[AcceptedOrder]) -> None:
    """Remember the firsts of orders that are safe now, or may be, for who sends them again."""
    if not orders:
        return

    def keep(client: Any) -> None:
        with client.pipeline(transaction=False) as pipeline:
            for order in orders:
                pipeline.expire(_first(order.id), FIRST_TTL_SECONDS)
            pipeline.execute()

    best_effort(keep)


def get_first(order_id: UUID) -> AcceptedOrder | None:
    """Return the first attempt of an order; whether it was accepted is another question."""
    copy = best_effort(lambda client: client.get(_first(order_id)))
    return None if copy is UNAVAILABLE else _read(copy)


def _first(order_id: UUID) -> str:
    return f"order:{order_id}:first"


def publish_settled(order_ids: Iterable[UUID]) -> None:
    """Wake whoever waits for the final status of these orders.

    Not heard while Redis is away: who waits looks for himself now and then.
    """
    ids = " ".join(map(str, order_ids))
    if ids:
        best_effort(lambda client: client.publish(FINAL_CHANNEL, ids))


def get_accepted(order_id: UUID) -> bytes | Unavailable | None:
    """Return the copy of an order that is not stored yet, None without one."""
    copy = best_effort(lambda client: client.get(_copy(order_id)))
    if copy is UNAVAILABLE or _read(copy) is not None:
        return copy
    return None


def _read(copy: bytes | None) -> AcceptedOrder | None:
    """Return the order in a copy; garbage is no copy."""
    try:
        return None if copy is None else msgspec.json.decode(copy, type=AcceptedOrder)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _copy(order_id: UUID) -> str:
    return f"order:{order_id}"
