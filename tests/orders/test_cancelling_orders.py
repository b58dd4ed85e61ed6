"""Cancelling orders, in any order of events."""

import itertools
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.test import Client

from orders_project.orders import cache, services
from orders_project.orders.models import Order
from servicekit.contracts.events import Event, StockRejected, StockReleased, StockReserved
from servicekit.identifiers import new_id
from servicekit.outbox.models import OutgoingEvent

pytestmark = pytest.mark.django_db


@pytest.fixture
def order(accepted_order) -> Order:
    accepted = accepted_order()
    services.place_orders([accepted])
    return Order.objects.get(id=accepted.id)


def outcome(kind: type[Event], order: Order, **facts: object) -> Event:
    return kind(
        order_id=str(order.id), product_id=order.product_id, quantity=order.quantity,
        remaining=5, version=2, **facts,
    )  # fmt: skip


def reserved(order: Order) -> Event:
    return outcome(StockReserved, order, decided_at="2026-11-23T10:00:00.000Z")


def rejected(order: Order) -> Event:
    return outcome(StockRejected, order, reason="insufficient_stock")


def released(order: Order) -> Event:
    return outcome(StockReleased, order, released_at="2026-11-23T10:00:01.000Z")


def cancel(client: Client, order_id: UUID) -> Any:
    # As `curl -X POST` does it: without a body, and without a word about its type.
    return client.generic("POST", f"/orders/{order_id}/cancel")


def cancellations() -> list[dict[str, object]]:
    rows = OutgoingEvent.objects.filter(routing_key="order.cancelled")
    return [msgspec.json.decode(row.body) for row in rows]


class TestPostCancel:
    def test_cancels_a_pending_order(self, client, order):
        answer = cancel(client, order.id)

        assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")
        assert client.get(f"/orders/{order.id}").json() == answer.json()

    def test_cancels_a_confirmed_order(self, client, order):
        services.settle_orders([reserved(order)])

        assert cancel(client, order.id).json()["status"] == "CANCELLED"

    def test_announces_it_once_however_often_it_is_asked_for(self, client, order):
        answers = [cancel(client, order.id) for _ in range(3)]

        assert {answer.content for answer in answers} == {answers[0].content}
        [event] = cancellations()
        assert event.pop("cancelledAt").endswith("Z")
        assert event == {
            "orderId": str(order.id),
            "productId": str(order.product_id),
            "quantity": order.quantity,
        }

    def test_refuses_an_order_that_was_rejected(self, client, order):
        services.settle_orders([rejected(order)])

        answer = cancel(client, order.id)

        assert (answer.status_code, answer.json()["code"]) == (409, "order_rejected")
        assert cancellations() == []

    def test_refuses_an_order_that_is_not_there(self, client):
        answer = cancel(client, new_id())

        assert (answer.status_code, answer.json()["code"]) == (404, "order_not_found")

    def test_cancels_an_order_that_is_accepted_and_not_stored_yet(self, client, accepted_order):
        accepted = accepted_order()
        cache.offer_copies([accepted])

        answer = cancel(client, accepted.id)
        # Now the worker comes with it.
        services.place_orders([accepted])

        assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")
        assert Order.objects.get(id=accepted.id).status == "CANCELLED"
        keys = OutgoingEvent.objects.order_by("id").values_list("routing_key", flat=True)
        assert list(keys) == ["order.created", "order.cancelled"]

    def test_takes_an_empty_object_and_nothing_else(self, client, order):
        path = f"/orders/{order.id}/cancel"

        refused = client.post(path, {"reason": "late"}, content_type="application/json")
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
        assert client.post(path, {}, content_type="application/json").status_code == 200

    def test_drops_the_list_that_shows_the_old_status(self, client, order):
        listed = f"/orders?productId={order.product_id}"
        assert [each["status"] for each in client.get(listed).json()] == ["PENDING"]

        cancel(client, order.id)

        assert [each["status"] for each in client.get(listed).json()] == ["CANCELLED"]


class TestACancelledOrder:
    # What the products worker may say, once or twice, before or after the cancellation.
    @pytest.mark.parametrize("outcomes", [[reserved, released], [rejected], [reserved] * 2, []])
    def test_stays_cancelled_whatever_comes_later(self, order, outcomes):
        services.cancel_order(order.id)

        assert services.settle_orders([outcome(order) for outcome in outcomes]) == []

        order.refresh_from_db()
        assert order.status == Order.Status.CANCELLED

    @pytest.mark.parametrize("order_of_events", [*itertools.permutations(["reserved", "cancel"])])
    def test_is_cancelled_in_any_order_of_events(self, order, order_of_events):
        for event in order_of_events:
            if event == "cancel":
                services.cancel_order(order.id)
            else:
                assert services.settle_orders([reserved(order)]) == []
        assert services.settle_orders([released(order)]) == []

        order.refresh_from_db()
        assert order.status == Order.Status.CANCELLED
        assert order.decided_at is not None
        assert order.released_at is not None

    def test_alone_can_have_its_stock_given_back(self, order):
        services.settle_orders([reserved(order)])

        [refused] = services.settle_orders([released(order)])

        assert "nothing of it was to be released" in refused.reason
        order.refresh_from_db()
        assert order.released_at is None


class TestAnnounceAgain:
    def count(self, routing_key: str) -> int:
        return OutgoingEvent.objects.filter(routing_key=routing_key).count()

    def test_asks_again_about_a_pending_order(self, order):
        assert services.announce_again([order.id]) == 1
        assert self.count("order.created") == 2

    def test_asks_again_for_the_stock_of_a_cancelled_order(self, order):
        services.cancel_order(order.id)

        assert services.announce_again([order.id]) == 1
        assert (self.count("order.created"), self.count("order.cancelled")) == (1, 2)

    def test_says_nothing_of_what_is_settled(self, order):
        services.settle_orders([reserved(order)])

        assert services.announce_again([order.id, UUID(int=7)]) == 0
        assert self.count("order.created") == 1
