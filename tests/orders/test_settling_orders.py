"""What becomes of an order when its stock is decided."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from django.db import IntegrityError
from django.utils import timezone

from orders_project.orders import catalog, services
from orders_project.orders.models import Order, Settlement
from servicekit.contracts.events import StockDecided
from servicekit.identifiers import new_id
from servicekit.outbox.models import OutgoingEvent
from tests.orders.stock_news import (
    cancelled,
    put,
    refusals,
    rejected,
    released,
    reserved,
    settle,
    someone_elses,
)
from tests.servicekit.interleaving import in_every_order, run_in_order

pytestmark = pytest.mark.django_db


class TestSettleOrders:
    @pytest.mark.parametrize(
        ("outcome", "status", "reason"),
        [(reserved, "CONFIRMED", ""), (rejected, "REJECTED", "insufficient_stock")],
    )
    def test_decides_an_order_says_why_and_takes_the_same_again_for_no_news(
        self, order, outcome, status, reason
    ):
        assert order.recheck_at is not None
        for times in (1, 2):
            assert refusals(settle(*[outcome(order)] * times)) == []
            settled_at = order.settled_at
            order.refresh_from_db()
            assert (order.status, order.reason) == (status, reason)
            assert order.settled_at is not None
            # Nobody asks again.
            assert order.recheck_at is None
        assert order.settled_at == settled_at

    @pytest.mark.parametrize("is_one_message", [True, False])
    def test_lets_the_first_of_two_contradicting_outcomes_decide(self, order, is_one_message):
        both = rejected(order), reserved(order)
        messages = [both] if is_one_message else [[each] for each in both]
        news = [StockDecided(decisions=[*each]) for each in messages]
        [refused] = settle(*news).unprocessable

        order.refresh_from_db()
        assert refused.event is news[-1]
        assert order.status == Order.Status.REJECTED

    @pytest.mark.parametrize(("first", "second"), [(reserved, rejected), (rejected, reserved)])
    def test_returns_an_outcome_against_a_final_status_and_keeps_it(self, order, first, second):
        settle(first(order))
        order.refresh_from_db()
        status, reason = order.status, order.reason
        [refused] = settle(second(order)).unprocessable

        order.refresh_from_db()
        assert refused.event == StockDecided(decisions=[second(order)])
        assert status in refused.reason
        assert (order.status, order.reason) == (status, reason)

    def test_returns_the_outcome_of_an_order_that_is_not_stored_and_settles_the_others(self, order):
        stranger = StockDecided(decisions=[someone_elses(new_id())])
        [refused] = settle(stranger, reserved(order)).unprocessable

        order.refresh_from_db()
        assert refused.event is stranger
        assert order.status == Order.Status.CONFIRMED

    @pytest.mark.parametrize(
        ("foreign", "facts"),
        [(4711, {}), ("4711", {}), ("order-4711", {}), (new_id(), {"foreign": True})],
    )
    def test_ignores_the_orders_of_other_systems(self, order, foreign, facts):
        assert refusals(settle(someone_elses(foreign, **facts), reserved(order))) == []

        order.refresh_from_db()
        assert order.status == Order.Status.CONFIRMED

    def test_takes_an_order_of_ours_for_ours_whoever_has_announced_it(self, order):
        settle(reserved(order, foreign=True))

        order.refresh_from_db()
        assert order.status == Order.Status.CONFIRMED

    def test_tells_our_copy_of_the_product_what_is_left(self, order):
        put(order.product_id, price=5, qty=10, version=1)
        settle(reserved(order, remaining=8, version=2))

        assert catalog.get(order.product_id).qty == 8

    @pytest.mark.parametrize("messages", [1, 50])
    def test_settles_many_at_once(self, accepted_order, django_assert_max_num_queries, messages):
        orders = [accepted_order() for _ in range(50)]
        services.place_orders(orders)
        size = 50 // messages
        news = [
            StockDecided(decisions=[reserved(order) for order in orders[start : start + size]])
            for start in range(0, 50, size)
        ]
        with django_assert_max_num_queries(6):
            settle(*news)

        assert Order.objects.filter(status=Order.Status.CONFIRMED).count() == 50


class TestAContradiction:
    """An answer that cannot be about this order changes nothing of it, and is dead-lettered."""

    @pytest.mark.parametrize("outcome", [reserved, rejected, cancelled, released])
    @pytest.mark.parametrize(
        "facts", [{"product_id": new_id()}, {"quantity": 3}], ids=["product", "quantity"]
    )
    def test_is_an_answer_about_another_product_or_quantity(self, order, outcome, facts):
        [reason] = refusals(settle(outcome(order, **facts)))

        assert str(next(iter(facts.values()))) in reason
        before = order.recheck_at
        order.refresh_from_db()
        assert (order.status, order.settled_at) == (Order.Status.PENDING, None)
        assert (order.decided_at, order.released_at) == (None, None)
        assert order.recheck_at == before

    @pytest.mark.parametrize("outcome", [reserved, rejected])
    def test_is_one_also_when_the_order_has_that_status_already(self, order, outcome):
        settle(outcome(order))

        assert len(refusals(settle(outcome(order, quantity=3)))) == 1

    @pytest.mark.parametrize("settled_by", [None, reserved, rejected])
    def test_is_that_an_order_was_cancelled_which_was_not(self, order, settled_by):
        if settled_by is not None:
            settle(settled_by(order))
        order.refresh_from_db()
        status = order.status

        [reason] = refusals(settle(cancelled(order)))

        assert "was not cancelled" in reason
        order.refresh_from_db()
        assert order.status == status

    def test_is_that_the_stock_of_an_order_came_back_which_was_not_cancelled(self, order):
        settle(reserved(order))

        [reason] = refusals(settle(released(order)))

        assert "nothing of it was to be released" in reason
        order.refresh_from_db()
        assert order.released_at is None

    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_does_not_hinder_the_others_in_its_message(self, accepted_order, position):
        placed = [accepted_order() for _ in range(3)]
        services.place_orders(placed)
        decisions = [reserved(each) for each in placed]
        decisions[position] = reserved(placed[position], quantity=99)
        message = StockDecided(decisions=decisions)

        [refused] = settle(message).unprocessable

        # As a whole: whoever looks at it sees what was said of the others as well.
        assert refused.event is message
        statuses = [Order.objects.get(id=each.id).status for each in placed]
        expected = [Order.Status.CONFIRMED] * 3
        expected[position] = Order.Status.PENDING
        assert statuses == expected

    def test_is_dead_lettered_once_for_a_message_with_several(self, accepted_order):
        placed = [accepted_order() for _ in range(2)]
        services.place_orders(placed)
        wrong = StockDecided(decisions=[reserved(each, quantity=99) for each in placed])

        assert len(refusals(settle(wrong))) == 1

    def test_leaves_the_order_to_be_asked_about_again(self, order):
        settle(reserved(order, quantity=99))

        Order.objects.update(recheck_at=timezone.now() - timedelta(seconds=1))
        assert [each.id for each in Order.objects.claim_overdue(10)] == [order.id]


class TestAnOrder:
    def test_cannot_be_final_without_having_been_settled(self, order):
        with pytest.raises(IntegrityError, match="order_settled_has_time"):
            Order.objects.filter(id=order.id).update(status=Order.Status.CONFIRMED)


@pytest.mark.django_db(transaction=True)
class TestSettlingBesideCancellingInEveryOrderOfStatements:
    @pytest.fixture(params=[reserved, rejected])
    def race(self, request, accepted_order) -> Callable[[Sequence[int]], list[int]]:
        def cancel(order_id: UUID) -> None:
            with contextlib.suppress(services.OrderIsRejected):
                services.cancel_order(order_id)

        def race(choices: Sequence[int]) -> list[int]:
            order = accepted_order()
            services.place_orders([order])
            news = request.param(order)
            options = run_in_order([partial(settle, news), partial(cancel, order.id)], choices)

            stored = Order.objects.get(id=order.id)
            cancellations = OutgoingEvent.objects.filter(correlation_id=str(order.id)).count()
            is_cancelled = stored.status == Order.Status.CANCELLED
            assert is_cancelled or request.param is rejected, "a cancelled order is not"
            assert cancellations == is_cancelled, "a cancelled order is not"
            assert stored.decided_at is not None
            return options

        return race

    def test_keeps_an_order_cancelled_that_is_said_to_be(self, race):
        assert in_every_order(race) > 5

    def test_does_not_without_the_row_lock(self, race, monkeypatch):
        def look(ids: Iterable[UUID]) -> dict[UUID, Settlement]:
            rows = Order.objects.filter(id__in=list(ids))
            facts = ("id", "product_id", "quantity", "status")
            return {
                row.id: Settlement(
                    **{name: getattr(row, name) for name in facts},
                    is_decided=row.decided_at is not None,
                    is_released=row.released_at is not None,
                )
                for row in rows
            }

        monkeypatch.setattr(Order.objects, "lock_for_settling", look)
        with pytest.raises(AssertionError, match="a cancelled order is not"):
            in_every_order(race)
