"""The stock beside a model of ten lines, whatever comes, whenever, however often, and who dies."""

from typing import Any
from uuid import UUID

import pytest
from django.db.models import Sum
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from products_project.products import services
from products_project.products.models import Decision, Product, Reservation, StockMovement
from products_project.products.selectors import ProductIsArchived
from servicekit import failpoints
from servicekit.contracts.events import OrderCancelled, OrderCreated
from servicekit.failpoints import FailpointError
from servicekit.identifiers import new_id
from tests.products.answers import release, reserve, told

numbers = st.integers(0, 10**6)
DEATHS = [None, None, None, "before_commit", "after_commit"]


class Model:
    """What the shop promises."""

    def __init__(self, stock: dict[UUID, int]) -> None:
        self.stock = stock
        self.outcomes: dict[str, str] = {}

    def order(self, order: OrderCreated) -> None:
        if order.order_id not in self.outcomes:
            is_there = order.quantity <= self.stock.get(order.product_id, 0)
            self.outcomes[order.order_id] = "RESERVED" if is_there else "REJECTED"
            if is_there:
                self.stock[order.product_id] -= order.quantity

    def cancel(self, cancelled: OrderCancelled) -> None:
        if self.outcomes.setdefault(cancelled.order_id, "CANCELLED") == "RESERVED":
            self.outcomes[cancelled.order_id] = "RELEASED"
            self.stock[cancelled.product_id] += cancelled.quantity


class Stock(RuleBasedStateMachine):
    """The product service at one end of a channel that delays, doubles, shuffles and loses."""

    @initialize(stocks=st.tuples(st.integers(0, 9), st.integers(0, 9)))
    def open_the_shop(self, stocks: tuple[int, ...]) -> None:
        made = [services.create_product(name="Lamp", price=1, qty=qty) for qty in stocks]
        self.ids = [product.id for product in made]
        self.model = Model(dict(zip(self.ids, stocks, strict=True)))
        self.nowhere = new_id()
        self.archived: set[UUID] = set()
        self.sent: list[OrderCreated] = []
        self.channel: list[OrderCreated | OrderCancelled] = []
        self.moves: dict[str, tuple[UUID, int, int]] = {}

    @rule(which=st.integers(0, 2), quantity=st.integers(1, 5))
    def order(self, which: int, quantity: int) -> None:
        product_id = [*self.ids, self.nowhere][which]
        order = OrderCreated(order_id=str(new_id()), product_id=product_id, quantity=quantity)
        self.sent.append(order)
        self.channel.append(order)

    @rule(which=numbers)
    def cancel(self, which: int) -> None:
        if self.sent:
            order = self.sent[which % len(self.sent)]
            facts = {"product_id": order.product_id, "quantity": order.quantity}
            self.channel.append(OrderCancelled(order_id=order.order_id, **facts))

    @rule(which=numbers)
    def lose(self, which: int) -> None:
        if self.channel:
            self.channel.pop(which % len(self.channel))

    @rule(which=numbers)
    def announce_again(self, which: int) -> None:
        if self.sent:
            self.channel.append(self.sent[which % len(self.sent)])

    @rule(which=st.integers(0, 1), delta=st.integers(-4, 6).filter(bool), again=st.booleans())
    def restock(self, which: int, delta: int, again: bool) -> None:
        key = list(self.moves)[-1] if again and self.moves else str(new_id())
        product_id, delta, _ = self.moves.get(key, (self.ids[which], delta, 0))
        try:
            movement = services.move_stock(
                product_id=product_id, delta=delta, reason="correction", idempotency_key=key
            )
        except services.StockBelowZero:
            assert self.model.stock[product_id] + delta < 0
        except ProductIsArchived:
            assert product_id in self.archived
        else:
            if key not in self.moves:
                self.model.stock[product_id] += delta
                self.moves[key] = (product_id, delta, self.model.stock[product_id])
            assert movement.qty_after == self.moves[key][2]

    @rule(which=st.integers(0, 1))
    def archive(self, which: int) -> None:
        if len(self.sent) > 5:
            services.archive_product(self.ids[which])
            self.archived.add(self.ids[which])

    @rule(which=st.integers(0, 1))
    def restore(self, which: int) -> None:
        services.restore_product(self.ids[which])
        self.archived.discard(self.ids[which])

    @rule(
        kind=st.sampled_from([OrderCreated, OrderCancelled]),
        order=st.randoms(use_true_random=False),
        count=st.integers(1, 6),
        death=st.sampled_from(DEATHS),
    )
    def deliver(self, kind: type, order: Any, count: int, death: str | None) -> None:
        waiting = [message for message in self.channel if isinstance(message, kind)]
        batch = order.sample(waiting, min(count, len(waiting)))
        if not batch:
            return
        handle, name = (reserve, "reserve") if kind is OrderCreated else (release, "release")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(failpoints, "_ACTIONS", {f"products.{name}.{death}": "raise"})
            try:
                handled = handle(batch)
            except FailpointError:
                handled = None
        if death != "before_commit":
            for message in batch:
                self.apply(message)
        if handled is not None:
            # Whoever dies, in whatever moment, gets the batch again.
            for message in batch:
                self.channel.remove(message)
            assert handled.unprocessable == []
            assert {(outcome, order_id) for outcome, order_id, _ in told(handled)} == {
                self.answer_to(message) for message in batch
            } - {None}

    def apply(self, message: OrderCreated | OrderCancelled) -> None:
        if isinstance(message, OrderCancelled):
            self.model.cancel(message)
        elif message.product_id in self.archived:
            self.model.outcomes.setdefault(message.order_id, "REJECTED")
        else:
            self.model.order(message)

    def answer_to(self, message: OrderCreated | OrderCancelled) -> tuple[str, str] | None:
        outcome = self.model.outcomes[message.order_id]
        if outcome == "RELEASED":
            is_waited_for = isinstance(message, OrderCancelled)
            return ("stock.released", message.order_id) if is_waited_for else None
        return outcome, message.order_id

    @invariant()
    def the_books_are_those_of_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        stock = Product.objects.in_bulk(self.ids)
        assert {one: product.qty for one, product in stock.items()} == self.model.stock
        moved = StockMovement.objects.filter(product_id__in=self.ids).values_list("product_id")
        explained = dict(moved.annotate(Sum("delta")).order_by())
        assert {one: explained.get(one, 0) for one in self.ids} == self.model.stock
        found = Reservation.objects.filter(order_id__in=[each.order_id for each in self.sent])
        assert dict(found.values_list("order_id", "outcome")) == self.model.outcomes

    def teardown(self) -> None:
        """In the end all that is not known to be decided is asked about again, and is decided."""
        if not hasattr(self, "model"):
            return
        self.channel += self.sent
        for kind in (OrderCancelled, OrderCreated):
            batch = [message for message in self.channel if isinstance(message, kind)]
            (reserve if kind is OrderCreated else release)(batch)
            for message in batch:
                self.apply(message)
        self.the_books_are_those_of_the_model()
        assert set(self.model.outcomes) == {order.order_id for order in self.sent}


def run(**options: Any) -> None:
    """Run the machine for some seconds; for longer with another profile of hypothesis."""
    options = {"max_examples": settings().max_examples // 3, "stateful_step_count": 30, **options}
    run_state_machine_as_test(Stock, settings=settings(**options))


@pytest.mark.timeout(900)  # a failure is told after five minutes, made as small as possible
@pytest.mark.django_db(transaction=True)
class TestStock:
    def test_is_always_what_the_model_says(self):
        run()

    def test_is_not_without_what_an_early_cancellation_leaves_behind(self, monkeypatch):
        # Proves that the machine finds what is wrong in one order of events only.
        insert = Reservation.objects.insert

        def forget_cancellations(rows: list[Decision]) -> int:
            insert([row for row in rows if row.outcome != "CANCELLED"])
            return len(rows)

        monkeypatch.setattr(Reservation.objects, "insert", forget_cancellations)
        # It ends as soon as it has found one.
        many = 10 * settings().max_examples
        with pytest.raises(AssertionError):
            run(phases=[Phase.generate], report_multiple_bugs=False, max_examples=many)
