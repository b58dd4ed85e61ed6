"""Accepting orders: what stands between a `POST /orders` and its 201.

An order is accepted when it cannot be lost any more: the broker has confirmed it, or, when the
broker is away, PostgreSQL has committed it.
"""

import logging
from collections.abc import Sequence
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections
from psycopg_pool import PoolTimeout

from orders_project.orders import cache, catalog, product_service, services
from orders_project.orders.group_commit import GroupCommit, NotCommitted, OutcomeUnknown
from orders_project.orders.product_service import ProductServiceUnavailable
from servicekit import metrics, origin
from servicekit.breaker import Breaker, Spared
from servicekit.contracts.commands import AcceptedOrder, PersistOrders
from servicekit.contracts.fields import MAX_INT64
from servicekit.failpoints import failpoint
from servicekit.identifiers import new_id
from servicekit.messaging.celery_protocol import task_message
from servicekit.messaging.publisher import (
    ConfirmingPublisher,
    Outcome,
    OutgoingMessage,
    PublishingFailed,
)
from servicekit.timestamps import now_in_milliseconds

logger = logging.getLogger(__name__)

# Whatever is down, the answer comes within two seconds; what follows stays below that together.
DEADLINE_SECONDS = 1.7
_CONNECT_TIMEOUT_SECONDS = 0.3
_CONFIRM_TIMEOUT_SECONDS = 0.6
# After a failure the broker is left alone for a moment, and batches go straight to PostgreSQL.
_BROKER_PAUSE_SECONDS = 1.0


class InsufficientStock(Exception):
    """There are fewer units than ordered."""

    def __init__(self, *, quantity: int, available: int) -> None:
        super().__init__(f"Ordered: {quantity}, in stock: {available}.")
        self.available = available


class TotalPriceTooLarge(Exception):
    """Price times quantity is more than can be stored."""

    def __init__(self) -> None:
        super().__init__("Price times quantity is too large.")


class UnableToAccept(Exception):
    """The order was not accepted, and nothing of it is left anywhere."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The order was not accepted: {reason} Try again.")


class AcceptanceUnknown(Exception):
    """Whether the order was accepted is not known yet; `order_id` will tell."""

    def __init__(self, order_id: UUID) -> None:
        super().__init__("Whether the order was accepted is not known yet; look for its id.")
        self.order_id = order_id


def accept(*, product_id: UUID, quantity: int) -> AcceptedOrder:
    """Accept an order at the product's present price, and return it when it cannot be lost.

    :raises: what `priced` and `submit` raise
    """
    order = priced(order_id=new_id(), product_id=product_id, quantity=quantity)
    submit(order, _commits)
    return order


def priced(*, order_id: UUID, product_id: UUID, quantity: int) -> AcceptedOrder:
    """Return an order that may be accepted, at the product's present price.

    :raises ProductNotFound: if the product service does not have the product
    :raises InsufficientStock: if it says that there are fewer units
    :raises TotalPriceTooLarge: if the total is beyond 64 bits
    :raises UnableToAccept: if there is no telling
    """
    total_price = _price_of(product_id, quantity) * quantity
    if total_price > MAX_INT64:
        raise TotalPriceTooLarge
    return AcceptedOrder(
        id=order_id,
        product_id=product_id,
        quantity=quantity,
        total_price=total_price,
        created_at=now_in_milliseconds(),
        **origin.headers(),
    )


def submit(order: AcceptedOrder, commits: GroupCommit[AcceptedOrder]) -> None:
    """Return when an order is durable.

    :raises UnableToAccept: if it is not, and left no trace
    :raises AcceptanceUnknown: if it may be
    """
    try:
        commits.submit(order)
    except NotCommitted as error:
        raise UnableToAccept("it could not be stored.") from error
    except OutcomeUnknown as error:
        raise AcceptanceUnknown(order.id) from error
    logger.debug("accepted an order", extra={"order_id": str(order.id)})


def _price_of(product_id: UUID, quantity: int) -> int:
    """Return the price to sell at. A copy is good enough to accept by; only the source refuses."""
    copy = catalog.get(product_id)
    if copy is not None and copy.is_fresh and copy.qty >= quantity:
        return copy.price
    try:
        product = product_service.fetch_product(product_id)
    except ProductServiceUnavailable:
        if copy is None:
            raise UnableToAccept("the product cannot be looked up now.") from None
        return copy.price
    catalog.put(
        product_id=product_id,
        name=product.name,
        price=product.price,
        qty=product.qty,
        version=product.version,
    )
    if product.qty < quantity:
        raise InsufficientStock(quantity=quantity, available=product.qty)
    return product.price


class DurableIntake:
    """Makes batches of orders durable; belongs to the one thread of the group commit."""

    def __init__(self) -> None:
        self._publisher = ConfirmingPublisher(
            settings.BROKER_URL,
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            confirm_timeout=_CONFIRM_TIMEOUT_SECONDS,
        )
        self._breaker = Breaker("the broker", pause_seconds=_BROKER_PAUSE_SECONDS)

    def commit(self, orders: Sequence[AcceptedOrder]) -> None:
        """Hand the orders to the workers, or store them here when that is not possible.

        :raises NotCommitted: if neither was possible and nothing is left
        :raises OutcomeUnknown: if neither is certain
        """
        # So that `GET /orders/{id}` finds them before a worker has stored them. Written first,
        # because the worker that stores them drops the copies, and may be faster than we are.
        are_visible = cache.offer_copies(orders)
        try:
            self.hand_over(orders)
        except PublishingFailed as error:
            self._store(orders, maybe_published=error.maybe_published)
            return
        failpoint("orders.intake.after_confirm")
        if not (are_visible and cache.keep_copies(orders)):
            # Then the database has to know them now. The worker will find them stored.
            self._store_if_possible(orders)

    def hand_over(self, orders: Sequence[AcceptedOrder]) -> None:
        """Have the broker confirm that a worker will store the orders.

        :raises PublishingFailed: if it does not
        """
        message = task_message(
            task=PersistOrders.task_name,
            queue=PersistOrders.queue,
            task_id=new_id(),
            kwargs=PersistOrders(orders=list(orders)),
        )
        try:
            self._breaker.call(lambda: self._publish(message), failures=(PublishingFailed,))
        except Spared as spared:
            raise PublishingFailed(str(spared), maybe_published=False) from spared

    def _publish(self, message: OutgoingMessage) -> None:
        [outcome] = self._publisher.publish([message])
        if outcome is not Outcome.CONFIRMED:
            # Not routed, or refused by its only queue: it is nowhere.
            raise PublishingFailed(f"the message was {outcome.value}", maybe_published=False)

    def _store(self, orders: Sequence[AcceptedOrder], *, maybe_published: bool) -> None:
        try:
            close_old_connections()
            services.place_orders(orders)
            metrics.INTAKE_FALLBACK.inc(len(orders))
        except (DatabaseError, InterfaceError) as error:
            # Neither a refusal nor a doubt may leave an order to be seen that is not stored.
            cache.forget_accepted(order.id for order in orders)
            logger.error("cannot store %d orders: %s", len(orders), error)  # noqa: TRY400 - no trace of an expected fault
            if maybe_published or may_have_committed(error):
                raise OutcomeUnknown(str(error)) from error
            raise NotCommitted(str(error)) from error
        finally:
            close_old_connections()

    def _store_if_possible(self, orders: Sequence[AcceptedOrder]) -> None:
        try:
            self._store(orders, maybe_published=True)
        except OutcomeUnknown:
            # They are safe with the broker all the same.
            logger.warning("%d accepted orders cannot be looked up yet", len(orders))


def may_have_committed(error: Exception) -> bool:
    """Return whether a database error leaves open if the transaction was committed."""
    cause = error.__cause__
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is not None:
        # The server itself said so and rolled back, unless it was ending the connection (57P0x,
        # 08xxx): then the commit may just have happened.
        return str(sqlstate).startswith(("57P", "08"))
    # Without a word from the server, only a transaction that never had a connection is certain.
    never_connected = isinstance(cause, PoolTimeout) or "connection failed" in str(cause)
    return not never_connected


_commits: GroupCommit[AcceptedOrder] = GroupCommit(
    DurableIntake().commit, deadline_seconds=DEADLINE_SECONDS
)
