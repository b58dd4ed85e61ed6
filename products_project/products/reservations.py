"""Deciding what orders get of the stock, and taking back what cancelled ones got."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import msgspec
from django.db import OperationalError, transaction
from msgspec.structs import replace

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
from servicekit.messaging.envelope import Received, event_message
from servicekit.timestamps import now_in_milliseconds, rfc3339

AboutOrder = Received[OrderCreated] | Received[OrderCancelled]


def reserve_stock(orders: Sequence[Received[OrderCreated]]) -> Handled:
    """Decide, for each order, whether it gets its stock; all or nothing per order.

    Reservations, movements and stock commit together, and the answers go out afterwards, all in one
    message. Orders are decided in the order given. One that was decided before keeps its decision,
    and is told it again: whoever asks twice has missed the answer. Running out is business as
    usual.

    Refused are orders that contradict what was decided under their id; nothing is done for them.
    """
    now = now_in_milliseconds()
    with transaction.atomic(durable=True):
        stock, known = _lock(orders)
        plan = decide(orders, stock, known, now)
        _write(plan, stock)
        failpoint("products.reserve.before_commit")
    failpoint("products.reserve.after_commit")
    return _handled(plan, stock)


def release_stock(cancellations: Sequence[Received[OrderCancelled]]) -> Handled:
    """Give back, once, what cancelled orders got of the stock; the counterpart of `reserve_stock`.

    A cancellation that overtakes its order leaves a decision behind, so that the order gets
    nothing when it comes. One of an order that got nothing, or gave it back before, changes
    nothing. Each is answered, however often it comes.

    Refused are cancellations that contradict what was decided under their order's id.
    """
    now = now_in_milliseconds()
    with transaction.atomic(durable=True):
        stock, known = _lock(cancellations)
        plan = decide(cancellations, stock, known, now)
        _write(plan, stock)
        failpoint("products.release.before_commit")
    failpoint("products.release.after_commit")
    return _handled(plan, stock)


class Level(msgspec.Struct):
    """What a batch leaves of a product so far; unless said otherwise, of one that is not there."""

    qty: int = 0
    version: int = 0
    price: int | None = None
    refusal: str = "product_not_found"

    @classmethod
    def of(cls, product: Product) -> "Level":
        """Return what is there before the batch."""
        refusal = "" if product.archived_at is None else "product_archived"
        return cls(product.qty, product.version, product.price, refusal)


@dataclass
class Plan:
    """What is to be written about a batch, and to be told."""

    now: datetime
    levels: dict[UUID, Level]
    new: list[Decision] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    claimed: list[str] = field(default_factory=list)
    movements: list[OrderMovement] = field(default_factory=list)
    decisions: list[StockDecision] = field(default_factory=list)
    releases: list[tuple[StockReleased, Correlation | None]] = field(default_factory=list)
    contradictions: list[Unprocessable] = field(default_factory=list)

    def move(
        self, level: Level, decision: Decision, delta: int, reason: StockMovement.Reason
    ) -> None:
        """Take what an order gets of the stock, or give it back."""
        level.qty += delta
        level.version += 1
        self.movements.append(
            OrderMovement(
                product_id=decision.product_id,
                delta=delta,
                qty_after=level.qty,
                reason=reason.value,
                order_id=decision.order_id,
                created_at=self.now,
            )
        )


def decide(
    events: Sequence[AboutOrder],
    stock: Mapping[UUID, Product],
    known: Mapping[str, Decision],
    now: datetime,
) -> Plan:
    """Return what becomes of orders and cancellations, in the order given, and do none of it.

    `stock` are the products that there are, `known` the decisions that there are, by order.
    """
    plan = Plan(now, {key: Level.of(product) for key, product in stock.items()})
    decided, now_text = dict(known), rfc3339(now)
    for each in events:
        event, key = each.event, order_key(each.event.order_id)
        level = plan.levels.get(event.product_id) or Level()
        decision = decided.get(key)
        if decision is None:
            decision = _first_decision(each, key, level, now)
            plan.new.append(decision)
            if decision.outcome == Reservation.Outcome.RESERVED:
                plan.move(level, decision, -event.quantity, StockMovement.Reason.ORDER)
        elif decision.is_foreign and not _is_foreign(each):
            decision = replace(decision, is_foreign=False)
            plan.claimed.append(key)
        decided[key] = decision
        if (decision.product_id, decision.quantity) != (event.product_id, event.quantity):
            reason = f"order {event.order_id} was decided with another payload"
            plan.contradictions.append(Unprocessable(event, reason))
            continue
        is_cancelled = isinstance(event, OrderCancelled)
        if is_cancelled and decision.outcome == Reservation.Outcome.RESERVED:
            decision = replace(decision, outcome=Reservation.Outcome.RELEASED.value)
            decided[key] = decision
            plan.released.append(key)
            plan.move(level, decision, event.quantity, StockMovement.Reason.CANCELLATION)
        if decision.outcome != Reservation.Outcome.RELEASED:
            at = now_text if decision.created_at is now else rfc3339(decision.created_at)
            plan.decisions.append(_told(each, decision, level, decided_at=at))
        # Nobody waits for the outcome of an order that has given its stock back.
        elif is_cancelled:
            plan.releases.append((_released(each, decision, level, now_text), each.correlation))
    return plan


def _first_decision(each: AboutOrder, key: str, level: Level, now: datetime) -> Decision:
    event, refusal = each.event, ""
    if isinstance(event, OrderCancelled):
        outcome = Reservation.Outcome.CANCELLED
    elif refusal := level.refusal or ("insufficient_stock" if event.quantity > level.qty else ""):
        outcome = Reservation.Outcome.REJECTED
    else:
        outcome = Reservation.Outcome.RESERVED
    return Decision(
        order_id=key,
        product_id=event.product_id,
        quantity=event.quantity,
        outcome=outcome.value,
        reason=refusal,
        stock_before=level.qty,
        created_at=now,
        is_foreign=_is_foreign(each),
    )


def _told(each: AboutOrder, decision: Decision, level: Level, *, decided_at: str) -> StockDecision:
    event = each.event
    return StockDecision(
        order_id=event.order_id,
        product_id=event.product_id,
        quantity=event.quantity,
        outcome=StockOutcome(decision.outcome),
        reason=decision.reason,
        remaining=level.qty,
        version=level.version,
        price=level.price,
        announced_at=None if isinstance(event, OrderCancelled) else each.published_at,
        decided_at=decided_at,
        foreign=decision.is_foreign,
        **(each.correlation.headers if each.correlation else {}),
    )


def _released(each: AboutOrder, decision: Decision, level: Level, at: str) -> StockReleased:
    event = each.event
    return StockReleased(
        order_id=event.order_id,
        product_id=event.product_id,
        quantity=event.quantity,
        remaining=level.qty,
        version=level.version,
        released_at=at,
        foreign=decision.is_foreign,
    )


def _is_foreign(each: AboutOrder) -> bool:
    """Return whether a message about an order comes from another producer than ours.

    Ours names its events by their content, in a name space of its own; nobody else does so.
    """
    return each.message_id != each.event.message_id


def _lock(about: Sequence[AboutOrder]) -> tuple[dict[UUID, Product], dict[str, Decision]]:
    stock = Product.objects.lock(each.event.product_id for each in about)
    # Read after the lock: another consumer may have decided the same orders meanwhile.
    return stock, Reservation.objects.decided(order_key(each.event.order_id) for each in about)


def _write(plan: Plan, stock: Mapping[UUID, Product]) -> None:
    if plan.new and Reservation.objects.insert(plan.new) != len(plan.new):
        # The same order id for two products, in two consumers at once: no product lock keeps
        # those apart. Nothing is committed, and the next attempt sees the other's decision.
        raise OperationalError("an order was decided elsewhere at the same moment")
    if plan.released:
        Reservation.objects.release(plan.released)
    if plan.claimed:
        Reservation.objects.claim(plan.claimed)
    if plan.movements:
        StockMovement.objects.insert(plan.movements)
        moved = [stock[key] for key in {movement.product_id for movement in plan.movements}]
        for product in moved:
            level = plan.levels[product.id]
            product.qty, product.version = level.qty, level.version
        Product.objects.write_stock(moved)


def _handled(plan: Plan, stock: Mapping[UUID, Product]) -> Handled:
    """Tell the cache what is committed; return the answers, and what could not be applied."""
    for decision in plan.new:
        if decision.outcome == Reservation.Outcome.REJECTED:
            metrics.STOCK_REFUSALS.labels(decision.reason).inc()
    # All of them, not only those that changed now: if we died here the last time, this is when
    # the cache hears of it.
    cache.store(stock.values(), read_at=plan.now.timestamp())
    answers = [event_message(*released) for released in plan.releases]
    if plan.decisions:
        answers.insert(0, event_message(StockDecided(decisions=plan.decisions)))
    return Handled(answers=answers, unprocessable=plan.contradictions)
