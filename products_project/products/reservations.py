"""Deciding what orders get of the stock, and taking back what cancelled ones got."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import OperationalError, transaction

from products_project.products import cache
from products_project.products.models import (
    Decision,
    OrderMovement,
    Product,
    Reservation,
    StockMovement,
)
from servicekit import metrics
from servicekit.contracts.events import (
    OrderCancelled,
    OrderCreated,
    StockDecided,
    StockDecision,
    StockOutcome,
    StockReleased,
)
from servicekit.contracts.fields import order_key
from servicekit.correlation import Correlation
from servicekit.failpoints import failpoint
from servicekit.messaging.consumer import Handled, Unprocessable
from servicekit.messaging.envelope import OutgoingMessage, Received, event_message
from servicekit.timestamps import now_in_milliseconds, rfc3339


def reserve_stock(orders: Sequence[Received[OrderCreated]]) -> Handled:
    """Decide, for each order, whether it gets its stock; all or nothing per order.

    Reservations, movements and stock commit together, and the answers go out afterwards, all in one
    message. Orders are decided in the order given. One that was decided before keeps its decision,
    and is told it again: whoever asks twice has missed the answer. Running out is business as
    usual.

    Refused are orders that contradict what was decided under their id; nothing is done for them.
    """
    batch = _Decisions()
    with transaction.atomic(durable=True):
        batch.decide_all(orders)
        failpoint("products.reserve.before_commit")
    failpoint("products.reserve.after_commit")
    return batch.handled()


def release_stock(cancellations: Sequence[Received[OrderCancelled]]) -> Handled:
    """Give back, once, what cancelled orders got of the stock; the counterpart of `reserve_stock`.

    A cancellation that overtakes its order leaves a decision behind, so that the order gets
    nothing when it comes. One of an order that got nothing, or gave it back before, changes
    nothing. Each is answered, however often it comes.

    Refused are cancellations that contradict what was decided under their order's id.
    """
    batch = _Decisions()
    with transaction.atomic(durable=True):
        batch.release_all(cancellations)
        failpoint("products.release.before_commit")
    failpoint("products.release.after_commit")
    return batch.handled()


class _Decisions:
    """The decisions of one transaction, made in memory on locked rows, written in bulk."""

    def __init__(self) -> None:
        self._contradictions: list[Unprocessable] = []
        self._stock: dict[UUID, Product] = {}
        self._decided: dict[str, Decision] = {}
        self._new: list[Decision] = []
        self._released: list[str] = []
        self._claimed: list[str] = []
        self._movements: list[OrderMovement] = []
        self._decisions: list[StockDecision] = []
        self._releases: list[OutgoingMessage] = []
        self._now = now_in_milliseconds()
        self._now_text = rfc3339(self._now)

    def handled(self) -> Handled:
        """Tell the cache what is committed; return the answers, and what could not be applied."""
        for reservation in self._new:
            if reservation.outcome == Reservation.Outcome.REJECTED:
                metrics.STOCK_REFUSALS.labels(reservation.reason).inc()
        # All of them, not only those that changed now: if we died here the last time, this is when
        # the cache hears of it.
        cache.store(self._stock.values(), read_at=self._now.timestamp())
        answers = self._releases
        if self._decisions:
            answers = [event_message(StockDecided(decisions=self._decisions)), *answers]
        return Handled(answers=answers, unprocessable=self._contradictions)

    def decide_all(self, orders: Sequence[Received[OrderCreated]]) -> None:
        """Decide each order that is not decided, and tell the outcome of each."""
        self._lock([each.event for each in orders])
        for each in orders:
            order = each.event
            known = self._known(each)
            if known is None:
                known = self._decide(order, is_foreign=_is_foreign(each))
            elif self._contradicts(order, known):
                continue
            # Nobody waits for the outcome of an order that has given its stock back.
            if known.outcome != Reservation.Outcome.RELEASED:
                self._add_decision(order, known, each.published_at, each.correlation)
        self._write()

    def release_all(self, cancellations: Sequence[Received[OrderCancelled]]) -> None:
        """Release each order's stock if it has some, and see that it gets none later."""
        self._lock([each.event for each in cancellations])
        for each in cancellations:
            cancelled = each.event
            known = self._known(each)
            if known is None:
                known = self._add_reservation(
                    cancelled, Reservation.Outcome.CANCELLED, is_foreign=_is_foreign(each)
                )
            elif self._contradicts(cancelled, known):
                continue
            if known.outcome == Reservation.Outcome.RESERVED:
                self._release(known)
            if known.outcome == Reservation.Outcome.RELEASED:
                self._add_release(cancelled, known, each.correlation)
            else:
                self._add_decision(cancelled, known, None, each.correlation)
        self._write()

    def _lock(self, about: Sequence[OrderCreated | OrderCancelled]) -> None:
        self._stock = Product.objects.lock(each.product_id for each in about)
        # Read after the lock: another consumer may have decided the same orders meanwhile.
        self._decided = Reservation.objects.decided(order_key(each.order_id) for each in about)

    def _known(self, each: Received[OrderCreated] | Received[OrderCancelled]) -> Decision | None:
        known = self._decided.get(order_key(each.event.order_id))
        if known is not None and known.is_foreign and not _is_foreign(each):
            known.is_foreign = False
            self._claimed.append(known.order_id)
        return known

    def _contradicts(self, event: OrderCreated | OrderCancelled, known: Decision) -> bool:
        if (known.product_id, known.quantity) == (event.product_id, event.quantity):
            return False
        self._contradictions.append(
            Unprocessable(event, f"order {event.order_id} was decided with another payload")
        )
        return True

    def _decide(self, order: OrderCreated, *, is_foreign: bool) -> Decision:
        product = self._stock.get(order.product_id)
        outcome, reason = Reservation.Outcome.REJECTED, ""
        if product is None:
            reason = "product_not_found"
        elif product.archived_at is not None:
            reason = "product_archived"
        elif order.quantity > product.qty:
            reason = "insufficient_stock"
        else:
            outcome = Reservation.Outcome.RESERVED
        reservation = self._add_reservation(order, outcome, reason, is_foreign=is_foreign)
        if outcome is Reservation.Outcome.RESERVED:
            self._add_movement(reservation, -order.quantity, StockMovement.Reason.ORDER)
        return reservation

    def _add_reservation(
        self,
        event: OrderCreated | OrderCancelled,
        outcome: Reservation.Outcome,
        reason: str = "",
        *,
        is_foreign: bool,
    ) -> Decision:
        product = self._stock.get(event.product_id)
        reservation = Decision(
            order_id=order_key(event.order_id),
            product_id=event.product_id,
            quantity=event.quantity,
            outcome=outcome.value,
            reason=reason,
            stock_before=product.qty if product else 0,
            created_at=self._now,
            is_foreign=is_foreign,
        )
        self._decided[reservation.order_id] = reservation
        self._new.append(reservation)
        return reservation

    def _release(self, reservation: Decision) -> None:
        reservation.outcome = Reservation.Outcome.RELEASED.value
        self._released.append(reservation.order_id)
        self._add_movement(reservation, reservation.quantity, StockMovement.Reason.CANCELLATION)

    def _add_movement(
        self, reservation: Decision, delta: int, reason: StockMovement.Reason
    ) -> None:
        product = self._stock[reservation.product_id]
        product.qty += delta
        product.version += 1
        self._movements.append(
            OrderMovement(
                product_id=product.id,
                delta=delta,
                qty_after=product.qty,
                reason=reason.value,
                order_id=reservation.order_id,
                created_at=self._now,
            )
        )

    def _add_decision(
        self,
        event: OrderCreated | OrderCancelled,
        reservation: Decision,
        announced_at: str | None,
        correlation: Correlation | None,
    ) -> None:
        product = self._stock.get(event.product_id)
        self._decisions.append(
            StockDecision(
                order_id=event.order_id,
                product_id=event.product_id,
                quantity=event.quantity,
                outcome=StockOutcome(reservation.outcome),
                reason=reservation.reason,
                remaining=product.qty if product else 0,
                version=product.version if product else 0,
                price=product.price if product else None,
                announced_at=announced_at,
                decided_at=self._text_of(reservation.created_at),
                foreign=reservation.is_foreign,
                **(correlation.headers if correlation else {}),
            )
        )

    def _text_of(self, moment: datetime) -> str:
        return self._now_text if moment is self._now else rfc3339(moment)

    def _add_release(
        self, cancelled: OrderCancelled, known: Decision, correlation: Correlation | None
    ) -> None:
        product = self._stock[cancelled.product_id]
        released = StockReleased(
            order_id=cancelled.order_id,
            product_id=cancelled.product_id,
            quantity=cancelled.quantity,
            remaining=product.qty,
            version=product.version,
            released_at=self._now_text,
            foreign=known.is_foreign,
        )
        self._releases.append(event_message(released, correlation))

    def _write(self) -> None:
        if self._new and Reservation.objects.insert(self._new) != len(self._new):
            # The same order id for two products, in two consumers at once: no product lock keeps
            # those apart. Nothing is committed, and the next attempt sees the other's decision.
            raise OperationalError("an order was decided elsewhere at the same moment")
        if self._released:
            Reservation.objects.release(self._released)
        if self._claimed:
            Reservation.objects.claim(self._claimed)
        if self._movements:
            StockMovement.objects.insert(self._movements)
            moved = {movement.product_id for movement in self._movements}
            Product.objects.write_stock(self._stock[product_id] for product_id in moved)


def _is_foreign(each: Received[OrderCreated] | Received[OrderCancelled]) -> bool:
    """Return whether a message about an order comes from another producer than ours.

    Ours names its events by their content, in a name space of its own; nobody else does so.
    """
    return each.message_id != each.event.message_id
