"""Orders beside a model of ten lines, whatever comes, whenever, however often, and who dies."""

from collections.abc import Sequence
from random import Random
from typing import Any
from uuid import UUID

import pytest
from django.db.models import Sum
from django.db.models.functions import Now
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from orders_project.orders import cache, services
from orders_project.orders.commands import AcceptedOrder, PersistOrders
from orders_project.orders.models import Order, OrderFigures
from orders_project.orders.subscriptions import place_and_announce
from servicekit import failpoints
from servicekit.contracts.events import (
    OrderCancelled,
    OrderCreated,
    StockDecided,
    StockDecision,
    StockOutcome,
    StockReleased,
)
from servicekit.database import figures
from servicekit.failpoints import FailpointError
from servicekit.identifiers import new_id
from servicekit.messaging.envelope import OutgoingMessage, Received
from servicekit.messaging.publisher import Outcome, PublishingFailed
from servicekit.outbox.models import OutgoingEvent
from servicekit.outbox.relay import publish_recorded_events
from servicekit.timestamps import now_in_milliseconds
from tests.orders.ordering import an_order
from tools.ledger.orders import OUTCOMES_OF_STATUS

numbers = st.integers(0, 10**6)
counts = st.integers(1, 5)
deaths = st.sampled_from([None, None, None, "before_commit", "after_commit"])
shuffles = st.randoms(use_true_random=False)
STOCK = 9


class Model:
    """What is promised of an order's status."""

    def __init__(self) -> None:
        self.status: dict[str, str] = {}

    def store(self, order_id: str) -> None:
        self.status.setdefault(order_id, "PENDING")

    def settle(self, order_id: str, outcome: str) -> None:
        if self.status[order_id] == "PENDING":
            self.status[order_id] = {"RESERVED": "CONFIRMED"}.get(outcome, outcome)

    def cancel(self, order_id: str) -> bool:
        if self.status[order_id] != "REJECTED":
            self.status[order_id] = "CANCELLED"
        return self.status[order_id] == "CANCELLED"


class Shelf:
    """What the product service would answer."""

    def __init__(self) -> None:
        self.left = STOCK
        self.outcomes: dict[str, str] = {}

    def answer(self, event: OrderCreated | OrderCancelled) -> StockDecided | StockReleased | None:
        order_id = str(event.order_id)
        is_cancelled = isinstance(event, OrderCancelled)
        if order_id not in self.outcomes:
            is_there = event.quantity <= self.left and not is_cancelled
            self.outcomes[order_id] = (
                "RESERVED" if is_there else "CANCELLED" if is_cancelled else "REJECTED"
            )
            self.left -= event.quantity * is_there
        elif is_cancelled and self.outcomes[order_id] == "RESERVED":
            self.outcomes[order_id] = "RELEASED"
            self.left += event.quantity
        outcome = self.outcomes[order_id]
        facts = {
            "order_id": order_id, "product_id": event.product_id, "quantity": event.quantity,
            "remaining": self.left, "version": 1,
        }  # fmt: skip
        if outcome == "RELEASED":
            return StockReleased(**facts) if is_cancelled else None
        return StockDecided(decisions=[StockDecision(**facts, outcome=StockOutcome(outcome))])


class Orders(RuleBasedStateMachine):
    """The order service at one end of channels that delay, double, shuffle and lose."""

    def __init__(self) -> None:
        super().__init__()
        self.product_id = new_id()
        self.accepted: dict[str, AcceptedOrder] = {}
        self.tasks: list[AcceptedOrder] = []
        self.to_products: list[OrderCreated | OrderCancelled] = []
        self.to_orders: list[StockDecided | StockReleased] = []
        self.model, self.shelf = Model(), Shelf()
        self.broker_is_away = False

    def publish(self, messages: Sequence[OutgoingMessage]) -> list[Outcome]:
        """Be the publisher of the relay and of the watchdog."""
        if self.broker_is_away:
            raise PublishingFailed("away", maybe_published=True)
        for message in messages:
            kind = OrderCreated if message.routing_key == "order.created" else OrderCancelled
            event = kind.from_json(message.body)
            if event.product_id == self.product_id:
                self.to_products.append(event)
        return [Outcome.CONFIRMED] * len(messages)

    @rule(quantity=st.integers(1, 4), has_copy=st.booleans())
    def accept(self, quantity: int, has_copy: bool) -> None:
        facts = {"quantity": quantity, "total_price": quantity}
        order = an_order(product_id=self.product_id, **facts)
        self.accepted[str(order.id)] = order
        self.tasks.append(order)
        if has_copy:
            cache.keep_copies([order])

    @rule(count=counts, shuffle=shuffles, death=deaths, is_heard=st.booleans())
    def persist(self, count: int, shuffle: Random, death: str | None, is_heard: bool) -> None:
        batch = shuffle.sample(self.tasks, min(count, len(self.tasks)))
        message = Received(PersistOrders(orders=batch))
        handled = self.die_or("orders.place", death, place_and_announce, [message])
        if death != "before_commit":
            for order in batch:
                self.model.store(str(order.id))
        if handled is not None:
            for order in batch:
                self.tasks.remove(order)
            if is_heard:
                self.publish(handled.answers)

    @rule(which=numbers)
    def cancel(self, which: int) -> None:
        known = [*self.accepted]
        if not known:
            return
        order_id = known[which % len(known)]
        try:
            services.cancel_order(UUID(order_id))
        except services.OrderIsRejected:
            assert not self.model.cancel(order_id)
        except services.selectors.OrderNotVisibleYet:
            assert order_id not in self.model.status
        else:
            self.model.store(order_id)
            assert self.model.cancel(order_id)

    @rule(away=st.booleans())
    def relay(self, away: bool) -> None:
        self.with_broker(away, lambda: publish_recorded_events(self))

    @rule(away=st.booleans())
    def watch(self, away: bool) -> None:
        waiting = Order.objects.filter(product_id=self.product_id, recheck_at__isnull=False)
        waiting.update(recheck_at=Now())
        self.with_broker(away, lambda: services.announce_overdue_orders(self))

    @rule()
    def merge(self) -> None:
        figures.merge(OrderFigures)

    @rule(count=counts, shuffle=shuffles)
    def answer(self, count: int, shuffle: Random) -> None:
        for event in shuffle.sample(self.to_products, min(count, len(self.to_products))):
            self.to_products.remove(event)
            answer = self.shelf.answer(event)
            self.to_orders += [answer] if answer else []

    @rule(count=counts, shuffle=shuffles, death=deaths)
    def settle(self, count: int, shuffle: Random, death: str | None) -> None:
        batch = shuffle.sample(self.to_orders, min(count, len(self.to_orders)))
        messages = [Received(each) for each in batch]
        handled = self.die_or("orders.settle", death, services.settle_orders, messages)
        if death != "before_commit":
            for each in batch:
                for decision in each.parts:
                    outcome = getattr(decision, "outcome", "CANCELLED")
                    self.model.settle(decision.order_id, outcome)
        if handled is not None:
            for each in batch:
                self.to_orders.remove(each)
            assert handled.unprocessable == []

    @rule(which=numbers, where=st.sampled_from(["tasks", "to_products", "to_orders"]))
    def double(self, which: int, where: str) -> None:
        if channel := getattr(self, where):
            channel.append(channel[which % len(channel)])

    @rule(which=numbers, where=st.sampled_from(["to_products", "to_orders"]))
    def lose(self, which: int, where: str) -> None:
        if channel := getattr(self, where):
            channel.pop(which % len(channel))

    @staticmethod
    def die_or(place: str, death: str | None, handle: Any, batch: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(failpoints, "_ACTIONS", {f"{place}.{death}": "raise"})
            try:
                return handle(batch)
            except FailpointError:
                return None

    def with_broker(self, away: bool, publish: Any) -> None:
        self.broker_is_away = away
        try:
            publish()
        except PublishingFailed:
            assert away
        self.broker_is_away = False

    @invariant()
    def orders_are_those_of_the_model(self) -> None:
        rows = Order.objects.filter(product_id=self.product_id)
        assert {str(row.id): row.status for row in rows} == self.model.status
        for row in rows:
            accepted = self.accepted[str(row.id)]
            for fact in ("product_id", "quantity", "total_price", "created_at"):
                assert getattr(row, fact) == getattr(accepted, fact)

    @invariant()
    def figures_are_those_of_the_orders(self) -> None:
        since = figures.RANGES["month"].since(now_in_milliseconds())
        for bar in OrderFigures.lengths:
            counted = OrderFigures.within(bar, since).aggregate(
                **{f"{name}_": Sum(name) for name in OrderFigures.sums()}
            )
            orders = list(Order.objects.values_list("status", "total_price"))
            assert [each or 0 for each in counted.values()] == [
                *(sum(each == status for each, _ in orders) for status in Order.Status),
                sum(price for status, price in orders if status == "CONFIRMED"),
            ]

    def teardown(self) -> None:
        """In the end every order is final, on both sides, and nobody asks any more."""
        everything = {"count": 10**6, "shuffle": Random(1)}
        for _ in range(4):
            self.persist(**everything, death=None, is_heard=False)
            OutgoingEvent.objects.update(available_at=Now())
            self.relay(away=False)
            self.watch(away=False)
            self.answer(**everything)
            self.settle(**everything, death=None)
        self.orders_are_those_of_the_model()
        assert set(self.model.status) == set(self.shelf.outcomes) == set(self.accepted)
        for order_id, status in self.model.status.items():
            assert self.shelf.outcomes[order_id] in OUTCOMES_OF_STATUS.get(status, ())
        mine = Order.objects.filter(product_id=self.product_id)
        assert self.shelf.left == STOCK - sum(
            order.quantity for order in mine.filter(status="CONFIRMED")
        )
        assert not mine.filter(recheck_at__isnull=False).exists()


def run(**options: Any) -> None:
    """Run the machine for some seconds; for longer with another profile of hypothesis."""
    few = settings(max_examples=settings().max_examples // 3, stateful_step_count=30, **options)
    run_state_machine_as_test(Orders, settings=few)


@pytest.mark.timeout(900)  # a failure is told after five minutes, made as small as possible
@pytest.mark.django_db(transaction=True)
class TestOrders:
    def test_are_always_what_the_model_says(self):
        run()

    def test_are_not_without_the_watchdog(self, monkeypatch):
        # Proves that the machine finds what is wrong only when a message is lost.
        monkeypatch.setattr(Order.objects, "claim_overdue", lambda _limit: [])
        with pytest.raises(AssertionError):
            run(phases=[Phase.generate], report_multiple_bugs=False)
