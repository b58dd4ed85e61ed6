"""What the order service keeps in Redis.

`orders:{productId}`: the first page of a product's orders, as it is answered.
`order:{id}`: an order that is accepted and not stored yet, as it is answered.
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
                pipeline.set(f"order:{order.id}", copy, ex=OFFERED_TTL_SECONDS)
            pipeline.execute()

    return attempt(offer) is not UNAVAILABLE


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


def get_accepted(order_id: UUID) -> bytes | Unavailable | None:
    """Return the copy of an order that is not stored yet, None without one."""
    return attempt(lambda client: client.get(f"order:{order_id}"))
