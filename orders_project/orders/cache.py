"""What the order service keeps in Redis.

`orders:{productId}`: the first page of a product's orders, as it is answered.
`order:{id}`: an order that is accepted and not stored yet, as it is answered.
`order:{id}:first`: an order with an `Idempotency-Key`, as the first attempt of it was accepted.
The channel `orders.final` says which orders have got a final status.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from orders_project.orders.representation import OrderDetail
from servicekit.caching.generational import GenerationalCache, RenderedPage
from servicekit.caching.redis import UNAVAILABLE, Unavailable, attempt, outdated
from servicekit.contracts.commands import AcceptedOrder

# What a write that Redis missed can cost: a list this old.
LIST_TTL_SECONDS = 30
# A copy is written before its order is safe. If we die in between, it must not stay for long.
OFFERED_TTL_SECONDS = 20
# Copies are deleted when their order is stored. This is for the worst backlog.
ACCEPTED_TTL_SECONDS = 24 * 3600
# How long before PostgreSQL goes away an order may have been stored, to be known all the same.
FIRST_TTL_SECONDS = 3600

FINAL_CHANNEL = "orders.final"

_lists = GenerationalCache("orders", ttl_seconds=LIST_TTL_SECONDS)


def first_page(product_id: UUID, render: Callable[[], RenderedPage]) -> RenderedPage:
    """Return the first page of a product's orders, rendered anew when it is not cached."""
    return _lists.get_or_render(product_id, render)


def forget_lists(product_ids: Iterable[UUID]) -> None:
    """Drop the lists of products whose orders have changed."""
    _lists.drop(set(product_ids))


def offer_copies(orders: Sequence[AcceptedOrder]) -> bool:
    """Make orders visible that are about to be accepted; return whether they are for sure."""

    def offer(client: Any) -> None:
        with client.pipeline(transaction=False) as pipeline:
            for order in orders:
                copy = msgspec.json.encode(OrderDetail.of(order))
                # A copy that is there already may be of an order that is safe: it stays longer.
                pipeline.set(f"order:{order.id}", copy, ex=OFFERED_TTL_SECONDS, nx=True)
            pipeline.execute()

    return attempt(offer) is not UNAVAILABLE


def claim_firsts(orders: Sequence[AcceptedOrder]) -> list[AcceptedOrder] | Unavailable:
    """Note each order as the first under its id, unless there is one; return the first of each."""

    def claim(client: Any) -> list[bytes | None]:
        with client.pipeline(transaction=False) as pipeline:
            for order in orders:
                copy = msgspec.json.encode(OrderDetail.of(order))
                pipeline.set(_first(order.id), copy, ex=OFFERED_TTL_SECONDS, nx=True, get=True)
            answers: list[bytes | None] = pipeline.execute()
            return answers

    earlier = attempt(claim)
    if earlier is UNAVAILABLE:
        return UNAVAILABLE
    return [
        order if copy is None else msgspec.json.decode(copy, type=AcceptedOrder)
        for order, copy in zip(orders, earlier, strict=True)
    ]


def keep_firsts(orders: Sequence[AcceptedOrder]) -> None:
    """Remember the firsts of orders that are safe now, or may be, for who sends them again."""

    def keep(client: Any) -> None:
        with client.pipeline(transaction=False) as pipeline:
            for order in orders:
                pipeline.expire(_first(order.id), FIRST_TTL_SECONDS)
            pipeline.execute()

    attempt(keep)


def get_first(order_id: UUID) -> AcceptedOrder | None:
    """Return the first attempt of an order; whether it was accepted is another question."""
    copy = attempt(lambda client: client.get(_first(order_id)))
    if copy is None or copy is UNAVAILABLE:
        return None
    return msgspec.json.decode(copy, type=AcceptedOrder)


def _first(order_id: UUID) -> str:
    return f"order:{order_id}:first"


def keep_copies(orders: Sequence[AcceptedOrder]) -> bool:
    """Keep the copies of orders that are safe now, until they are stored; return whether it worked.

    A copy that is gone, because its order is stored already, does not come back.
    """

    def keep(client: Any) -> None:
        with client.pipeline(transaction=False) as pipeline:
            for order in orders:
                pipeline.expire(f"order:{order.id}", ACCEPTED_TTL_SECONDS)
            pipeline.execute()

    return attempt(keep) is not UNAVAILABLE


def forget_accepted(order_ids: Iterable[UUID]) -> None:
    """Drop the copies of orders that are stored now."""
    keys = [f"order:{order_id}" for order_id in order_ids]
    if keys and attempt(lambda client: client.unlink(*keys)) is UNAVAILABLE:
        outdated(keys)


def tell_final(order_ids: Iterable[UUID]) -> None:
    """Wake whoever waits for the final status of these orders.

    Not heard while Redis is away: who waits looks for himself now and then.
    """
    ids = " ".join(map(str, order_ids))
    if ids:
        attempt(lambda client: client.publish(FINAL_CHANNEL, ids))


def get_accepted(order_id: UUID) -> bytes | Unavailable | None:
    """Return the copy of an order that is not stored yet, None without one."""
    return attempt(lambda client: client.get(f"order:{order_id}"))
