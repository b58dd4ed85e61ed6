"""Making orders durable: with the broker, which hands them to a worker, or in the database.

Either is enough, and both having happened is harmless: the ids are made before, and an order is
stored once.
"""

import enum
import logging
from collections import deque
from collections.abc import Callable, Sequence

from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections, connection
from psycopg_pool import PoolTimeout

from orders_project.orders import cache, services
from orders_project.orders.commands import AcceptedOrder, PersistOrders
from orders_project.orders.models import RECHECK_AFTER_SECONDS, Order
from orders_project.orders.representation import order_created
from servicekit import metrics
from servicekit.breaker import Breaker, CircuitOpen
from servicekit.caching.redis import UNAVAILABLE
from servicekit.failpoints import failpoint
from servicekit.http.deadline import DeadlineExceeded, limited_to
from servicekit.identifiers import new_id
from servicekit.messaging.celery_protocol import task_message
from servicekit.messaging.envelope import OutgoingMessage, event_message
from servicekit.messaging.publisher import ConfirmingPublisher, PublishingFailed
from servicekit.messaging.publisher import Outcome as Confirm

logger = logging.getLogger(__name__)

# One after the other, they stay below the time that a request has.
_CONNECT_TIMEOUT_SECONDS = 0.3
_CONFIRM_TIMEOUT_SECONDS = 0.6
_DATABASE_TIMEOUT_SECONDS = 0.7
# After a failure a way is left out for a moment.
_PAUSE_SECONDS = 1.0

_UNCLAIMED_LIMIT = 5000

_DATABASE_FAILURES = (DatabaseError, InterfaceError, DeadlineExceeded)


class Outcome(enum.Enum):
    """What became of a batch of orders."""

    SAFE = "safe"
    """It cannot be lost any more."""
    NOWHERE = "nowhere"
    """Nothing of it is left anywhere."""
    UNKNOWN = "unknown"
    """It may be safe, or become so."""

    def or_else(self, way: "Callable[[], Outcome]") -> "Outcome":
        """Return the outcome of this way and, unless that is safe, of another one after it."""
        if self is Outcome.SAFE:
            return self
        then = way()
        # A way that failed for certain makes one that may have worked no more certain.
        return self if then is Outcome.NOWHERE else then


class Durability:
    """The two ways to make orders durable; belongs to the one thread of a group commit."""

    def __init__(self) -> None:
        self._publisher = ConfirmingPublisher(
            settings.BROKER_URL,
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            confirm_timeout=_CONFIRM_TIMEOUT_SECONDS,
        )
        self._broker = Breaker("the broker", pause_seconds=_PAUSE_SECONDS)
        # Looking, storing and looking again would each wait for a database that is away.
        self.database = Breaker("the database", pause_seconds=_PAUSE_SECONDS)
        # Keyed orders that Redis, away, was not told of, and that are stored or may be. It is told
        # before it decides about another attempt, or it would take that one for the first.
        self._unclaimed: deque[AcceptedOrder] = deque(maxlen=_UNCLAIMED_LIMIT)

    def place(self, orders: Sequence[AcceptedOrder]) -> Outcome:
        """Hand orders to the workers; while the broker does not take them, store them here."""
        are_visible = cache.keep_copies(orders)
        outcome = self._hand_over(orders)
        if outcome is Outcome.SAFE and not are_visible:
            # Then the database has to know them now. The worker will find them stored.
            if self._store(orders) is not Outcome.SAFE:
                logger.warning("%d accepted orders cannot be looked up yet", len(orders))
            return outcome
        outcome = outcome.or_else(lambda: self._store(orders, recheck_after_seconds=0))
        if outcome is not Outcome.SAFE:
            # Neither a refusal nor a doubt may leave an order to be seen that is not stored.
            cache.forget_accepted(order.id for order in orders)
        return outcome

    def place_keyed(self, orders: Sequence[AcceptedOrder]) -> Outcome:
        """Store orders with an `Idempotency-Key`; without the database, have the broker keep them.

        Which of several attempts is the order, the database decides. While it is away, Redis
        decides, which has been told of each attempt before it was stored.
        """
        unclaimed = list(self._unclaimed)
        claimed = cache.claim_firsts([*unclaimed, *orders])
        # Without Redis there is nobody else to decide, so not even a database that was away a
        # moment ago is spared.
        no_claims = claimed is UNAVAILABLE
        if claimed is UNAVAILABLE:
            firsts = orders
        else:
            firsts = claimed[len(unclaimed) :]
            cache.keep_firsts(unclaimed)
            self._unclaimed.clear()
        outcome = self._store(firsts, force=no_claims)
        if outcome is Outcome.SAFE:
            self._announce(firsts)
        elif not no_claims:
            # All of them, though the first attempt may have been here before us: if it has failed,
            # this is the one that counts.
            outcome = outcome.or_else(lambda: self._hand_over(firsts))
            if outcome is not Outcome.NOWHERE:
                # Not before: who knows the key knows the id, and could see or cancel what is
                # refused then. A worker that was faster leaves a copy that the watchdog drops.
                cache.keep_copies(firsts)
        if outcome is not Outcome.NOWHERE:
            # A later attempt must not be another order than the one that may come of this.
            if no_claims:
                self._unclaimed.extend(firsts)
            else:
                cache.keep_firsts(firsts)
        return outcome

    def close(self) -> None:
        """Let go of the connection to the broker."""
        self._publisher.close()

    def _hand_over(self, orders: Sequence[AcceptedOrder]) -> Outcome:
        message = task_message(
            task=PersistOrders.task_name,
            queue=PersistOrders.queue,
            task_id=new_id(),
            kwargs=PersistOrders(orders=list(orders)),
        )
        try:
            [confirm] = self._publish([message])
        except CircuitOpen:
            return Outcome.NOWHERE
        except PublishingFailed as error:
            return Outcome.UNKNOWN if error.maybe_published else Outcome.NOWHERE
        failpoint("orders.intake.after_confirm")
        if confirm is Confirm.REFUSED:
            # The broker says no, and does not say how far it had got.
            return Outcome.UNKNOWN
        return Outcome.SAFE if confirm is Confirm.CONFIRMED else Outcome.NOWHERE

    def _publish(self, messages: Sequence[OutgoingMessage]) -> list[Confirm]:
        def publish() -> list[Confirm]:
            outcomes = self._publisher.publish(messages)
            if outcomes[0] is not Confirm.CONFIRMED:
                logger.warning("the broker has %s a batch of orders", outcomes[0].value)
            return outcomes

        return self._broker.call(publish, failures=(PublishingFailed,))

    def _store(
        self,
        orders: Sequence[AcceptedOrder],
        *,
        recheck_after_seconds: int = RECHECK_AFTER_SECONDS,
        force: bool = True,
    ) -> Outcome:
        connection.dedicate()  # type: ignore[attr-defined]  # of our own backend

        def store() -> None:
            close_old_connections()
            with limited_to(_DATABASE_TIMEOUT_SECONDS):
                services.place_orders(orders, recheck_after_seconds=recheck_after_seconds)

        try:
            self.database.call(store, failures=_DATABASE_FAILURES, force=force)
        except CircuitOpen:
            return Outcome.NOWHERE
        except _DATABASE_FAILURES as error:
            logger.warning("cannot store %d orders: %s", len(orders), error)
            connection.close()
            return Outcome.UNKNOWN if _may_have_committed(error) else Outcome.NOWHERE
        finally:
            close_old_connections()
        if recheck_after_seconds == 0:
            metrics.INTAKE_FALLBACK.inc(len(orders))
        return Outcome.SAFE

    def _announce(self, orders: Sequence[AcceptedOrder]) -> None:
        """Announce stored orders; whatever cannot be announced now, the watchdog announces."""
        events = [event_message(order_created(order), order.correlation) for order in orders]
        try:
            self._publish(events)
        except (CircuitOpen, PublishingFailed):
            try:
                Order.objects.recheck_now([order.id for order in orders])
            except _DATABASE_FAILURES as error:
                logger.info("the watchdog announces %d orders later: %s", len(orders), error)


def _may_have_committed(error: Exception) -> bool:
    """Return whether an error leaves open if the transaction was committed."""
    cause = error.__cause__
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate is not None:
        # The server itself said so and rolled back, unless it was ending the connection (57P0x,
        # 08xxx): then the commit may just have happened.
        return str(sqlstate).startswith(("57P", "08"))
    # Without a word from the server, only a transaction that never had a connection is certain.
    never_connected = isinstance(cause, PoolTimeout) or "connection failed" in str(cause)
    return not never_connected
