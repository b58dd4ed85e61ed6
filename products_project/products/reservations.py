"""Deciding what orders get of the stock, and taking back what cancelled ones got."""

from collections.abc import Sequence
from uuid import UUID

from django.db import OperationalError, connection, transaction

from products_project.products import cache
from products_project.products.models import Product, Reservation, StockMovement
from servicekit import metrics
from servicekit.contracts.events import (
    Event,
    OrderCancelled,
    OrderCreated,
    StockRejected,
    StockReleased,
    StockReserved,
)
from servicekit.contracts.fields import order_key
from servicekit.failpoints import failpoint
from servicekit.messaging.consumer import Unprocessable
from servicekit.outbox import recording
from servicekit.timestamps import now_in_milliseconds, rfc3339


def reserve_stock(orders: Sequence[OrderCreated]) -> list[Unprocessable]:
    """Decide, for each order, whether it gets its stock; all or nothing per order.

    Reservations, movements, stock and the events that tell the outcome commit together. Orders
    are decided in the order given. One that was decided before keeps its decision, and is told
    it again: whoever asks twice has missed the answer. Running out is business as usual.

    Returns the orders that contradict what was decided under their id; nothing is done for them.
    """
    batch = _Decisions()
    with transaction.atomic(durable=True):
        batch.decide_all(orders)
        failpoint("products.reserve.before_commit")
    failpoint("products.reserve.after_commit")
    for reason in batch.refusals:
        metrics.STOCK_REFUSALS.labels(reason).inc()
    # All of them, not only those that changed now: if we died here the last time, this is when the
    # cache hears of it.
    cache.store(batch.products)
    return batch.contradictions


def release_stock(cancellations: Sequence[OrderCancelled]) -> list[Unprocessable]:
    """Give back, once, what cancelled orders got of the stock; the counterpart of `reserve_stock`.

    A cancellation that overtakes its order leaves a decision behind, so that the order gets
    nothing when it comes. One of an order that got nothing, or gave it back before, changes
    nothing.

    Returns the cancellations that contradict what was decided under their order's id.
    """
    batch = _Decisions()
    with transaction.atomic(durable=True):
        batch.release_all(cancellations)
        failpoint("products.release.before_commit")
    cache.store(batch.products)
    return batch.contradictions


class _Decisions:
    """The decisions of one transaction, made in memory on locked rows, written in bulk."""

    def __init__(self) -> None:
        self.contradictions: list[Unprocessable] = []
        self._stock: dict[UUID, Product] = {}
        self._decided: dict[str, Reservation] = {}
        self._new: list[Reservation] = []
        self._released: list[str] = []
        self._movements: list[StockMovement] = []
        self._events: list[Event] = []
        self._now = now_in_milliseconds()

    @property
    def products(self) -> list[Product]:
        """The products that were asked for and exist, as they are now."""
        return list(self._stock.values())

    @property
    def refusals(self) -> list[str]:
        """Why orders that were decided now got no stock, one reason each."""
        return [r.reason for r in self._new if r.outcome == Reservation.Outcome.REJECTED]

    def decide_all(self, orders: Sequence[OrderCreated]) -> None:
        """Decide each order that is not decided, and tell the outcome of each."""
        self._lock(orders)
        for order in orders:
            known = self._decided.get(order_key(order.order_id))
            if known is None:
                known = self._decide(order)
            elif self._contradicts(order, known):
                continue
            self._tell(order, known)
        self._write()

    def release_all(self, cancellations: Sequence[OrderCancelled]) -> None:
        """Release each order's stock if it has some, and see that it gets none later."""
        self._lock(cancellations)
        for cancelled in cancellations:
            known = self._decided.get(order_key(cancelled.order_id))
            if known is None:
                self._note(cancelled, Reservation.Outcome.CANCELLED)
            elif self._contradicts(cancelled, known):
                continue
            elif known.outcome == Reservation.Outcome.RESERVED:
                self._release(known)
                self._tell_release(cancelled)
            elif known.outcome == Reservation.Outcome.RELEASED:
                # Whoever asks twice has missed the answer.
                self._tell_release(cancelled)
        self._write()

    def _lock(self, about: Sequence[OrderCreated | OrderCancelled]) -> None:
        self._stock = Product.objects.lock(each.product_id for each in about)
        # Read after the lock: another consumer may have decided the same orders meanwhile.
        self._decided = Reservation.objects.decided(order_key(each.order_id) for each in about)

    def _contradicts(self, event: OrderCreated | OrderCancelled, known: Reservation) -> bool:
        if (known.product_id, known.quantity) == (event.product_id, event.quantity):
            return False
        self.contradictions.append(
            Unprocessable(event, f"order {event.order_id} was decided with another payload")
        )
        return True

    def _decide(self, order: OrderCreated) -> Reservation:
        product = self._stock.get(order.product_id)
        if product is None:
            return self._note(order, Reservation.Outcome.REJECTED, "product_not_found")
        if product.archived_at is not None:
            return self._note(order, Reservation.Outcome.REJECTED, "product_archived")
        if order.quantity > product.qty:
            return self._note(order, Reservation.Outcome.REJECTED, "insufficient_stock")
        reservation = self._note(order, Reservation.Outcome.RESERVED)
        self._move(reservation, -order.quantity, StockMovement.Reason.ORDER)
        return reservation

    def _note(
        self, event: OrderCreated | OrderCancelled, outcome: Reservation.Outcome, reason: str = ""
    ) -> Reservation:
        product = self._stock.get(event.product_id)
        reservation = Reservation(
            order_id=order_key(event.order_id),
            product_id=event.product_id,
            quantity=event.quantity,
            outcome=outcome,
            reason=reason,
            stock_before=product.qty if product else 0,
            created_at=self._now,
        )
        self._decided[reservation.order_id] = reservation
        self._new.append(reservation)
        return reservation

    def _release(self, reservation: Reservation) -> None:
        reservation.outcome = Reservation.Outcome.RELEASED
        self._released.append(reservation.order_id)
        self._move(reservation, reservation.quantity, StockMovement.Reason.CANCELLATION)

    def _move(self, reservation: Reservation, delta: int, reason: StockMovement.Reason) -> None:
        product = self._stock[reservation.product_id]
        product.qty += delta
        product.version += 1
        self._movements.append(
            StockMovement(
                product_id=product.id,
                delta=delta,
                qty_after=product.qty,
                reason=reason,
                order_id=reservation.order_id,
                created_at=self._now,
            )
        )

    def _tell(self, order: OrderCreated, reservation: Reservation) -> None:
        product = self._stock.get(order.product_id)
        remaining, version = (product.qty, product.version) if product else (0, 0)
        if reservation.outcome == Reservation.Outcome.RESERVED:
            self._events.append(
                StockReserved(
                    order_id=order.order_id,
                    product_id=order.product_id,
                    quantity=order.quantity,
                    remaining=remaining,
                    version=version,
                    announced_at=order.announced_at,
                    decided_at=rfc3339(reservation.created_at),
                )
            )
        elif reservation.outcome == Reservation.Outcome.REJECTED:
            self._events.append(
                StockRejected(
                    order_id=order.order_id,
                    product_id=order.product_id,
                    quantity=order.quantity,
                    remaining=remaining,
                    version=version,
                    announced_at=order.announced_at,
                    decided_at=rfc3339(reservation.created_at),
                    reason=reservation.reason,
                )
            )
        # Nobody waits for the outcome of an order that is cancelled.

    def _tell_release(self, cancelled: OrderCancelled) -> None:
        product = self._stock[cancelled.product_id]
        self._events.append(
            StockReleased(
                order_id=cancelled.order_id,
                product_id=cancelled.product_id,
                quantity=cancelled.quantity,
                remaining=product.qty,
                version=product.version,
                released_at=rfc3339(self._now),
            )
        )

    def _write(self) -> None:
        if self._new:
            self._insert_reservations()
        if self._released:
            Reservation.objects.release(self._released)
        if self._movements:
            StockMovement.objects.insert(self._movements)
            moved = {movement.product_id for movement in self._movements}
            Product.objects.write_stock(self._stock[product_id] for product_id in moved)
        recording.record_all(self._events)

    def _insert_reservations(self) -> None:
        # Sorted, so that two consumers with the same orders wait for each other, not in a circle.
        rows = sorted(self._new, key=lambda reservation: reservation.order_id)
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO reservation
                    (order_id, product_id, quantity, outcome, reason, stock_before, created_at)
                SELECT * FROM unnest(
                    %s::text[], %s::uuid[], %s::int[], %s::text[], %s::text[], %s::int[],
                    %s::timestamptz[]
                )
                ON CONFLICT (order_id) DO NOTHING
                """,
                [
                    [r.order_id for r in rows],
                    [r.product_id for r in rows],
                    [r.quantity for r in rows],
                    [str(r.outcome) for r in rows],
                    [r.reason for r in rows],
                    [r.stock_before for r in rows],
                    [self._now] * len(rows),
                ],
            )
            if cursor.rowcount != len(rows):
                # The same order id for two products, in two consumers at once: no product lock
                # keeps those apart. Nothing is committed, and the next attempt sees the other's
                # decision.
                raise OperationalError("an order was decided elsewhere at the same moment")
