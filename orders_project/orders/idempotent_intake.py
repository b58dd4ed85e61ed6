"""Accepting orders under an `Idempotency-Key`: however often they are sent, there is one.

The key makes the order's id, so there can be no second order, whatever fails. Which of several
attempts is the order, with its price and its time, PostgreSQL decides: it is stored there before
it is answered. While PostgreSQL is away, Redis decides, which has been told of each before it was
stored, and the broker keeps the order.
"""

from collections.abc import Sequence
from uuid import NAMESPACE_URL, UUID, uuid5

from django.db import DatabaseError, InterfaceError, close_old_connections, connection

from orders_project.orders import cache, intake, selectors, services
from orders_project.orders.group_commit import GroupCommit, NotCommitted, OutcomeUnknown
from orders_project.orders.product_service import ProductNotFound
from servicekit.breaker import Breaker, Spared
from servicekit.caching.redis import UNAVAILABLE
from servicekit.contracts.commands import AcceptedOrder
from servicekit.messaging.publisher import PublishingFailed

_ORDER_IDS = uuid5(NAMESPACE_URL, "urn:products-and-orders:idempotency-keys")
_REFUSALS = (ProductNotFound, intake.InsufficientStock, intake.TotalPriceTooLarge)

# Looking, storing and looking again would each wait for a database that is away.
_FAILURES = (DatabaseError, InterfaceError)
_database = Breaker("the database", pause_seconds=1.0)


class IdempotencyKeyReused(Exception):
    """The key was used before, for another order."""

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used before, for another order.")


def accept_once(key: str, *, product_id: UUID, quantity: int) -> AcceptedOrder:
    """Accept an order, or return the one that was accepted under this key, as it was accepted.

    What was refused is not remembered: it left nothing, and may be tried again.

    :raises IdempotencyKeyReused: if that one is for another product or quantity
    :raises: what `intake.accept` raises
    """
    order_id = order_id_of(key)
    order = _stored(order_id)
    if order is None:
        attempt = cache.get_first(order_id)
        if attempt is None:
            try:
                attempt = intake.priced(order_id=order_id, product_id=product_id, quantity=quantity)
            except _REFUSALS:
                # Another attempt may have been faster, and have taken the last unit.
                attempt = _stored(order_id)
                if attempt is None:
                    raise
        # Before it is made durable: a claim may be all that is left of an attempt that failed.
        _check_same(attempt, product_id, quantity)
        intake.submit(attempt, _commits)
        order = _stored(order_id) or cache.get_first(order_id) or attempt
    _check_same(order, product_id, quantity)
    return order


def order_id_of(key: str) -> UUID:
    """Return the id of the one order of a key (a name-based UUID, RFC 9562, section 5.5)."""
    return uuid5(_ORDER_IDS, key)


def _check_same(order: AcceptedOrder, product_id: UUID, quantity: int) -> None:
    if (order.product_id, order.quantity) != (product_id, quantity):
        raise IdempotencyKeyReused


def _stored(order_id: UUID) -> AcceptedOrder | None:
    """Return the order if it is stored, None if it is not or the database is away."""
    try:
        return _database.call(lambda: selectors.find_stored_order(order_id), failures=_FAILURES)
    except (Spared, *_FAILURES):
        return None
    finally:
        # Who waits to be stored would otherwise keep it from the thread that stores: the web
        # process has fewer connections than threads.
        connection.close_if_unusable_or_obsolete()


class _StoringIntake:
    """Makes batches of keyed orders durable; belongs to the one thread of their group commit."""

    def __init__(self, durable: intake.DurableIntake) -> None:
        self._durable = durable

    def commit(self, orders: Sequence[AcceptedOrder]) -> None:
        """Store the orders; while that is not possible, have Redis decide and the broker keep them.

        :raises NotCommitted: if neither was possible
        :raises OutcomeUnknown: if one of them may have been
        """
        # Before they are stored, so that all attempts are the same from now on, for those, too, who
        # will not see what is stored because PostgreSQL is away.
        claimed = cache.claim_firsts(orders)
        firsts = orders if claimed is UNAVAILABLE else claimed
        may_be_stored = False
        try:
            close_old_connections()
            # Without Redis there is nobody else to decide, so not even a database that was away a
            # moment ago is spared.
            _database.call(
                lambda: services.place_orders(firsts),
                failures=_FAILURES,
                insists=claimed is UNAVAILABLE,
            )
        except Spared:
            pass
        except _FAILURES as error:
            may_be_stored = intake.may_have_committed(error)
        else:
            cache.keep_firsts(firsts)
            return
        finally:
            close_old_connections()
        if claimed is UNAVAILABLE:
            failure = "neither the database nor Redis answers"
            raise OutcomeUnknown(failure) if may_be_stored else NotCommitted(failure)
        cache.offer_copies(firsts)
        try:
            # All of them, though the first attempt may have been here before us: if it has failed,
            # this is the one that counts.
            self._durable.hand_over(firsts)
        except PublishingFailed as error:
            if may_be_stored or error.maybe_published:
                # A later attempt must not be another order than the one that may come of this.
                cache.keep_firsts(firsts)
                raise OutcomeUnknown(str(error)) from error
            raise NotCommitted(str(error)) from error
        cache.keep_copies(firsts)
        cache.keep_firsts(firsts)


_commits: GroupCommit[AcceptedOrder] = GroupCommit(
    _StoringIntake(intake.DurableIntake()).commit, deadline_seconds=intake.DEADLINE_SECONDS
)
