"""Reading orders."""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self
from uuid import UUID

import msgspec
from django.db import InterfaceError, OperationalError
from django.db.models import BooleanField, Func, Q, UUIDField, Value

from orders_project.orders import cache
from orders_project.orders.commands import AcceptedOrder
from orders_project.orders.models import Order
from orders_project.orders.representation import OrderDetail
from servicekit.caching.redis import UNAVAILABLE
from servicekit.identifiers import made_at

# How long an id may have been accepted though its order is nowhere: Redis has lost the copy, and no
# worker has stored it yet.
ON_ITS_WAY_SECONDS = 60
# The version of the ids that are made of an Idempotency-Key.
_OF_A_KEY = 5
# By how much the clocks of two machines may differ.
_CLOCK_DIFFERENCE_SECONDS = 5


class OrderNotFound(Exception):
    """There is no order with this id."""

    def __init__(self, order_id: object) -> None:
        super().__init__(f"There is no order {order_id}.")


class OrderNotVisibleYet(Exception):
    """Whether there is such an order cannot be told now; in a moment it can."""

    def __init__(self, order_id: object) -> None:
        super().__init__(f"Whether there is an order {order_id} cannot be told now.")


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BEFORE_ALL_IDS = UUID(int=0)


@dataclass(frozen=True)
class OrderPosition:
    """Where an order stands among all orders: by its time, and by its id within a millisecond."""

    # Not by the id alone: one that was made from an Idempotency-Key knows no time.
    created_at: datetime
    order_id: UUID

    @classmethod
    def of(cls, order: Order) -> Self:
        """Return an order's position."""
        return cls(order.created_at, order.id)

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the position that `str` has written.

        :raises ValueError: if it has not
        :raises OverflowError: if it is beyond all calendars
        """
        milliseconds, _, order_id = text.partition(".")
        return cls(_EPOCH + timedelta(milliseconds=int(milliseconds)), UUID(order_id))

    def __str__(self) -> str:
        milliseconds = (self.created_at - _EPOCH) // timedelta(milliseconds=1)
        return f"{milliseconds}.{self.order_id}"


@dataclass(frozen=True)
class StoragePosition:
    """Where an order stands among all orders by when it was stored; by default, before them all."""

    number: int = 0
    # For those that were stored before there were numbers, and all have 0.
    order_id: UUID = _BEFORE_ALL_IDS

    @classmethod
    def of(cls, order: Order) -> Self:
        """Return an order's position."""
        return cls(order.stored_number, order.id)

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the position that `str` has written.

        :raises ValueError: if it has not
        """
        kind, number, order_id = text.split(".")
        if kind != "stored" or not 0 <= int(number) < 2**63:
            raise ValueError(text)
        return cls(int(number), UUID(order_id))

    def __str__(self) -> str:
        # Not to be taken for an `OrderPosition`.
        return f"stored.{self.number}.{self.order_id}"


@dataclass(frozen=True)
class OrderFilter:
    """Which orders a list shows; None does not restrict it. The times are exclusive."""

    product_id: UUID | None = None
    status: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    @property
    def is_by_product_only(self) -> bool:
        """Whether this is the list that is worth caching."""
        return self == OrderFilter(product_id=self.product_id) and self.product_id is not None

    def lookups(self) -> dict[str, object]:
        """Return what Django filters by."""
        named = {
            "product_id": self.product_id,
            "status": self.status,
            "created_at__gt": self.created_after,
            "created_at__lt": self.created_before,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class TimelineStep:
    """Something that happened to an order, and how long after the step before it."""

    name: str
    at: datetime
    since_previous_ms: int | None


@dataclass(frozen=True)
class Page:
    """Orders, newest first, and whether older ones follow."""

    orders: list[Order]
    has_more: bool


def get_rendered_order(order_id: UUID) -> bytes:
    """Return an order as it is answered: stored, or accepted and on its way to being stored.

    :raises OrderNotFound: if there is none
    :raises OrderNotVisibleYet: if it may be where we cannot look now
    :raises OperationalError: if the database is away and Redis does not have it
    """
    try:
        stored = _stored(order_id)
        if stored is None:
            return _accepted(order_id)
    except (OperationalError, InterfaceError):
        accepted = cache.get_accepted(order_id)
        if accepted is None or accepted is UNAVAILABLE:
            raise
        return accepted
    return stored


def get_accepted_order(order_id: UUID) -> AcceptedOrder:
    """Return an order as it was accepted, stored or not; the price is that of its acceptance.

    :raises OrderNotFound: if there is none
    :raises OrderNotVisibleYet: if it may be where we cannot look now
    :raises OperationalError: if the database is away and Redis does not have it
    """
    return msgspec.json.decode(get_rendered_order(order_id), type=AcceptedOrder)


def find_stored_order(order_id: UUID) -> AcceptedOrder | None:
    """Return an order as it was accepted if it is stored, None if it is not.

    :raises OperationalError: if the database is away
    """
    rendered = _stored(order_id)
    return None if rendered is None else msgspec.json.decode(rendered, type=AcceptedOrder)


def get_order(order_id: UUID) -> Order:
    """Return an order; of one that is not stored yet, what is known of it.

    :raises: as `get_accepted_order`
    """
    try:
        stored = Order.objects.filter(id=order_id).first()
    except (OperationalError, InterfaceError):
        stored = None
    if stored is not None:
        return stored
    accepted = get_accepted_order(order_id)
    return Order(
        id=accepted.id,
        product_id=accepted.product_id,
        quantity=accepted.quantity,
        total_price=accepted.total_price,
        created_at=accepted.created_at,
    )


def _accepted(order_id: UUID) -> bytes:
    accepted = cache.get_accepted(order_id)
    if accepted is UNAVAILABLE:
        raise OrderNotVisibleYet(order_id)
    if accepted is None:
        # Stored, and its copy dropped, between our two looks?
        accepted = _stored(order_id)
    if accepted is None:
        if _may_be_on_its_way(order_id):
            raise OrderNotVisibleYet(order_id)
        raise OrderNotFound(order_id)
    return accepted


def _may_be_on_its_way(order_id: UUID) -> bool:
    if order_id.version == _OF_A_KEY:
        # It tells no time. Redis has known each of them, unless it has lost its memory since.
        return cache.remembers_seconds() < ON_ITS_WAY_SECONDS
    at = made_at(order_id)
    return at is not None and -_CLOCK_DIFFERENCE_SECONDS < time.time() - at < ON_ITS_WAY_SECONDS


def _stored(order_id: UUID) -> bytes | None:
    order = Order.objects.filter(id=order_id).first()
    return msgspec.json.encode(OrderDetail.of(order)) if order else None


def orders_page(wanted: OrderFilter, *, limit: int, after: OrderPosition | None) -> Page:
    """Return at most `limit` orders, newest first, older than the one at the position `after`."""
    orders = Order.objects.filter(**wanted.lookups()).order_by("-created_at", "-id")
    if after is not None:
        # The first condition is for the index, the second for those of the same millisecond.
        orders = orders.filter(created_at__lte=after.created_at).filter(
            Q(created_at__lt=after.created_at) | Q(id__lt=after.order_id)
        )
    # One more than asked for, to know whether it is worth asking again.
    found = list(orders[: limit + 1])
    return Page(found[:limit], len(found) > limit)


def orders_as_stored(*, limit: int, after: StoragePosition) -> list[Order]:
    """Return at most `limit` orders after a position, in the order in which they are stored.

    What is stored later, however early its transaction began, comes later: nothing is ever added
    before a position that this has returned. An order shows up when all before it are stored.
    """
    orders = Order.objects.filter(stored_number__lte=Order.objects.stored_for_good())
    # A comparison of rows, which an index answers; Django has none.
    is_after = Func(
        Value(after.number),
        Value(after.order_id, UUIDField()),
        template="(stored_number, id) > (%(expressions)s)",
        output_field=BooleanField(),
    )
    return list(orders.filter(is_after).order_by("stored_number", "id")[:limit])


def final_among(order_ids: Collection[UUID]) -> list[UUID]:
    """Return those of some orders that have a final status."""
    final = Order.objects.filter(id__in=order_ids).exclude(status=Order.Status.PENDING)
    return list(final.values_list("id", flat=True))


def timeline(order: Order) -> list[TimelineStep]:
    """Return what has happened to an order so far, in the order of time."""
    steps: list[TimelineStep] = []
    # Sorting keeps the usual order of what happened in the same millisecond.
    for at, name in sorted(_moments(order), key=lambda moment: moment[0]):
        since = (at - steps[-1].at) // timedelta(milliseconds=1) if steps else None
        steps.append(TimelineStep(name, at, since))
    return steps


def _moments(order: Order) -> Iterator[tuple[datetime, str]]:
    # By the reason and not by the status: one that is cancelled may have been rejected before.
    is_rejected = bool(order.reason) or order.status == Order.Status.REJECTED
    moments = (
        (order.created_at, "accepted"),
        (order.stored_at, "stored"),
        (order.announced_at, "announced"),
        (order.decided_at, "rejected" if is_rejected else "reserved"),
        (order.settled_at, "settled"),
        (order.cancelled_at, "cancelled"),
        (order.released_at, "released"),
    )
    for at, name in moments:
        if at is not None:
            # As the wire writes it: the milliseconds between two steps are those that one sees.
            yield at.replace(microsecond=at.microsecond // 1000 * 1000), name
