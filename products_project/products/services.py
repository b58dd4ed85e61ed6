"""Writing products and their stock. Whatever changes stock is here, and nowhere else."""

from collections.abc import Sequence
from uuid import UUID

from django.db import OperationalError, connection, transaction
from django.db.models import F

from products_project.products import cache
from products_project.products.models import Product, Reservation, StockMovement
from products_project.products.representation import announce
from products_project.products.selectors import ProductNotFound
from servicekit import metrics
from servicekit.contracts.events import (
    Event,
    OrderCreated,
    ProductCreated,
    ProductUpdated,
    StockRejected,
    StockReserved,
)
from servicekit.contracts.fields import order_key
from servicekit.failpoints import failpoint
from servicekit.messaging.consumer import Unprocessable
from servicekit.outbox import recording


def create_product(*, name: str, price: int, qty: int) -> Product:
    """Store a product, the movement that explains its first stock, and the event about it.

    All three commit together; the cache is written afterwards.
    """
    with transaction.atomic(durable=True):
        product = Product.objects.create(name=name, price=price, qty=qty)
        if qty:
            product.movements.create(delta=qty, reason=StockMovement.Reason.INITIAL)
        recording.record_all([announce(ProductCreated, product)])
    cache.store([product])
    return product


def update_product(
    product_id: UUID, *, name: str | None = None, price: int | None = None
) -> Product:
    """Change a product's name or price, and announce the new state in the same transaction.

    :raises ProductNotFound: if there is none
    """
    changes: dict[str, object] = {
        field: value for field, value in (("name", name), ("price", price)) if value is not None
    }
    with transaction.atomic(durable=True):
        if changes:
            # Relative to the row, not to a copy of it: a sale in between keeps its version.
            Product.objects.filter(id=product_id).update(version=F("version") + 1, **changes)
        try:
            product = Product.objects.get(id=product_id)
        except Product.DoesNotExist:
            raise ProductNotFound(product_id) from None
        if changes:
            recording.record_all([announce(ProductUpdated, product)])
    cache.store([product])
    return product


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


class _Decisions:
    """The decisions of one transaction, made in memory on locked rows, written in bulk."""

    def __init__(self) -> None:
        self.contradictions: list[Unprocessable] = []
        self._stock: dict[UUID, Product] = {}
        self._decided: dict[str, Reservation] = {}
        self._new: list[Reservation] = []
        self._events: list[Event] = []

    @property
    def products(self) -> list[Product]:
        """The products that were asked for and exist, as they are now."""
        return list(self._stock.values())

    @property
    def refusals(self) -> list[str]:
        """Why orders that were decided now got no stock, one reason each."""
        return [r.reason for r in self._new if r.outcome == Reservation.Outcome.REJECTED]

    def _changed_products(self) -> list[Product]:
        """Return the products that units were taken from."""
        sold = {r.product_id for r in self._new if r.outcome == Reservation.Outcome.RESERVED}
        return [product for product_id, product in self._stock.items() if product_id in sold]

    def decide_all(self, orders: Sequence[OrderCreated]) -> None:
        self._stock = Product.objects.lock(order.product_id for order in orders)
        # Read after the lock: another consumer may have decided the same orders meanwhile.
        self._decided = Reservation.objects.decided(order_key(order.order_id) for order in orders)
        for order in orders:
            known = self._decided.get(order_key(order.order_id))
            if known is None:
                known = self._decide(order)
            elif (known.product_id, known.quantity) != (order.product_id, order.quantity):
                self.contradictions.append(
                    Unprocessable(order, f"order {order.order_id} was decided with another payload")
                )
                continue
            self._events.append(self._outcome(order, known))
        self._write()

    def _decide(self, order: OrderCreated) -> Reservation:
        product = self._stock.get(order.product_id)
        stock = product.qty if product else 0
        is_reserved = product is not None and order.quantity <= stock
        reservation = Reservation(
            order_id=order_key(order.order_id),
            product_id=order.product_id,
            quantity=order.quantity,
            outcome=Reservation.Outcome.RESERVED if is_reserved else Reservation.Outcome.REJECTED,
            reason="" if is_reserved else "insufficient_stock" if product else "product_not_found",
            stock_before=stock,
        )
        if product is not None and is_reserved:
            product.qty -= order.quantity
            product.version += 1
        self._decided[reservation.order_id] = reservation
        self._new.append(reservation)
        return reservation

    def _outcome(self, order: OrderCreated, reservation: Reservation) -> Event:
        product = self._stock.get(order.product_id)
        remaining, version = (product.qty, product.version) if product else (0, 0)
        if reservation.outcome == Reservation.Outcome.RESERVED:
            return StockReserved(
                order_id=order.order_id,
                product_id=order.product_id,
                quantity=order.quantity,
                remaining=remaining,
                version=version,
            )
        return StockRejected(
            order_id=order.order_id,
            product_id=order.product_id,
            quantity=order.quantity,
            remaining=remaining,
            version=version,
            reason=reservation.reason,
        )

    def _write(self) -> None:
        if self._new:
            self._insert_reservations()
            self._insert_movements()
            Product.objects.write_stock(self._changed_products())
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
                    [r.created_at for r in rows],
                ],
            )
            if cursor.rowcount != len(rows):
                # The same order id for two products, in two consumers at once: no product lock
                # keeps those apart. Nothing is committed, and the next attempt sees the other's
                # decision.
                raise OperationalError("an order was decided elsewhere at the same moment")

    def _insert_movements(self) -> None:
        rows = [r for r in self._new if r.outcome == Reservation.Outcome.RESERVED]
        if not rows:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO stock_movement (product_id, delta, reason, order_id, created_at)
                SELECT product_id, -quantity, 'order', order_id, created_at
                FROM unnest(%s::uuid[], %s::int[], %s::text[], %s::timestamptz[])
                    AS taken (product_id, quantity, order_id, created_at)
                """,
                [
                    [r.product_id for r in rows],
                    [r.quantity for r in rows],
                    [r.order_id for r in rows],
                    [r.created_at for r in rows],
                ],
            )
