"""Accepting orders: what stands between a `POST /orders` and its 201.

An order is accepted when it cannot be lost any more: the broker has confirmed it, or, when the
broker is away, PostgreSQL has committed it.

With an `Idempotency-Key`, however often it is sent, there is one order: the key makes its id, so
there can be no second one, whatever fails. Which of several attempts is the order, with its price
and its time, PostgreSQL decides: it is stored there before it is answered. While PostgreSQL is
away, Redis decides, which has been told of each attempt before.
"""

import logging
from functools import cache as once
from uuid import NAMESPACE_URL, UUID, uuid5

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from orders_project.orders import cache, selectors
from orders_project.orders.commands import NAME_MAX_LENGTH, AcceptedOrder
from orders_project.orders.placement.durability import Durability, Outcome
from orders_project.orders.placement.group_commit import GroupCommit
from orders_project.orders.placement.pricing import (
    InsufficientStock,
    PriceUnknown,
    Pricing,
    TotalPriceTooLarge,
)
from orders_project.orders.product_service import ProductNotFound
from servicekit import correlation
from servicekit.breaker import CircuitOpen
from servicekit.caching import refusals
from servicekit.http import deadline
from servicekit.http.deadline import DeadlineExceeded, limited_to
from servicekit.identifiers import new_id
from servicekit.timestamps import now_in_milliseconds

logger = logging.getLogger(__name__)

_ORDER_IDS = uuid5(NAMESPACE_URL, "urn:products-and-orders:idempotency-keys")
_REASONS: dict[type[Exception], str] = {
    ProductNotFound: "product_not_found",
    InsufficientStock: "insufficient_stock",
    TotalPriceTooLarge: "total_price_too_large",
}
_REFUSALS = tuple(_REASONS)
# What remains for the answer after the commit.
_RESERVE_SECONDS = 0.1
# After a look at a database that does not answer, the ways around it need the rest of the time.
_LOOK_SECONDS = 0.7


class UnableToAccept(Exception):
    """The order was not accepted, and nothing of it is left anywhere."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The order was not accepted: {reason} Try again.")


class AcceptanceUnknown(Exception):
    """Whether the order was accepted, or at what price, is not known yet; `order_id` will tell."""

    def __init__(self, order_id: UUID) -> None:
        super().__init__("Whether the order was accepted is not known yet; look for its id.")
        self.order_id = order_id


class IdempotencyKeyReused(Exception):
    """The key was used before, for another order."""

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used before, for another order.")


class Intake:
    """Accepts orders, one at a time, and makes them durable together."""

    def __init__(self) -> None:
        self._pricing = Pricing()
        self._plain, self._keyed = Durability(), Durability()
        pace = settings.INTAKE_PACE_SECONDS
        self._plain_commits = GroupCommit(self._plain.place, pace_seconds=pace)
        self._keyed_commits = GroupCommit(self._keyed.place_keyed, pace_seconds=pace)

    def accept(self, *, product_id: UUID, quantity: int) -> AcceptedOrder:
        """Accept an order at the product's present price, and return it when it cannot be lost.

        :raises ProductNotFound, InsufficientStock, TotalPriceTooLarge: as `Pricing.offer`
        :raises UnableToAccept: if it is not accepted, and left no trace
        :raises AcceptanceUnknown: if it may be
        """
        try:
            order = self._priced(new_id(), product_id, quantity)
        except _REFUSALS as error:
            _count(error, product_id)
            raise
        _submit(order, self._plain_commits)
        return order

    def accept_once(self, key: str, *, product_id: UUID, quantity: int) -> AcceptedOrder:
        """Accept an order, or return the one that was accepted under this key, as it was accepted.

        What was refused is not remembered: it left nothing, and may be tried again.

        :raises IdempotencyKeyReused: if that one is for another product or quantity
        :raises: what `accept` raises
        """
        order_id = order_id_of(key)
        order = self._stored(order_id)
        if order is None:
            attempt = cache.get_first(order_id)
            if attempt is None:
                try:
                    attempt = self._priced(order_id, product_id, quantity)
                except _REFUSALS as error:
                    # Another attempt may have been faster, and have taken the last unit.
                    attempt = self._stored(order_id)
                    if attempt is None:
                        _count(error, product_id)
                        raise
            # Before it is made durable: a claim may be all that is left of an attempt that failed.
            _check_same(attempt, product_id, quantity)
            try:
                _submit(attempt, self._keyed_commits)
            except UnableToAccept as error:
                if isinstance(cache.get_accepted(order_id), bytes):
                    # An earlier attempt was accepted, or may have been.
                    raise AcceptanceUnknown(order_id) from error
                raise
            try:
                order = self._stored(order_id) or cache.get_first(order_id)
            except DeadlineExceeded:
                order = None
            if order is None:
                # It is safe, but whether it is this attempt or an earlier one, nobody can tell now.
                raise AcceptanceUnknown(order_id)
        _check_same(order, product_id, quantity)
        return order

    def close(self) -> None:
        """Let go of the connections to the broker."""
        self._plain.close()
        self._keyed.close()

    def _priced(self, order_id: UUID, product_id: UUID, quantity: int) -> AcceptedOrder:
        try:
            offer = self._pricing.offer(product_id, quantity)
        except PriceUnknown as error:
            raise UnableToAccept(str(error)) from error
        except DeadlineExceeded as error:
            raise UnableToAccept("there was no time left for it.") from error
        return AcceptedOrder(
            id=order_id,
            product_id=product_id,
            quantity=quantity,
            total_price=offer.total_price,
            # Whatever a product service says, it must not keep the order from being stored.
            product_name=offer.product_name.replace("\0", "")[:NAME_MAX_LENGTH],
            created_at=now_in_milliseconds(),
            **correlation.headers(),
        )

    def _stored(self, order_id: UUID) -> AcceptedOrder | None:
        """Return the order if it is stored, None if it is not or the database is away."""
        failures = (DatabaseError, InterfaceError, DeadlineExceeded)

        def look() -> AcceptedOrder | None:
            with limited_to(_LOOK_SECONDS):
                return selectors.find_stored_order(order_id)

        try:
            return self._keyed.database.call(look, failures=failures)
        except (CircuitOpen, *failures):
            return None
        finally:
            # A request that waits needs no connection, and there are fewer of them than requests.
            connection.close_if_unusable_or_obsolete()


@once
def intake() -> Intake:
    """Return the intake of this process, made when first used: after the fork."""
    return Intake()


def order_id_of(key: str) -> UUID:
    """Return the id of the one order of a key (a name-based UUID, RFC 9562, section 5.5)."""
    return uuid5(_ORDER_IDS, key)


def _count(refusal: Exception, product_id: UUID) -> None:
    # Ids of no product are without number.
    is_known = not isinstance(refusal, ProductNotFound)
    refusals.count(_REASONS[type(refusal)], product_id if is_known else None)


def _submit(order: AcceptedOrder, commits: GroupCommit[AcceptedOrder]) -> None:
    seconds = deadline.remaining(deadline.REQUEST_SECONDS) - _RESERVE_SECONDS
    outcome = commits.submit(order, timeout_seconds=seconds)
    if outcome is Outcome.NOWHERE:
        raise UnableToAccept("it could not be stored.")
    if outcome is Outcome.UNKNOWN:
        raise AcceptanceUnknown(order.id)
    logger.debug("accepted an order", extra={"order_id": str(order.id)})


def _check_same(order: AcceptedOrder, product_id: UUID, quantity: int) -> None:
    if (order.product_id, order.quantity) != (product_id, quantity):
        raise IdempotencyKeyReused
