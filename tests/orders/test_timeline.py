"""What happened to an order, and when."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connection

from orders_project.orders import cache, services
from orders_project.orders.models import Order
from servicekit.timestamps import rfc3339
from tests.orders.stock_news import rejected, released, reserved, settle

pytestmark = pytest.mark.django_db

ACCEPTED_AT = datetime(2026, 11, 23, 10, 0, 0, 5000, tzinfo=UTC)


def after(milliseconds: int) -> str:
    return rfc3339(ACCEPTED_AT + timedelta(milliseconds=milliseconds))


@pytest.fixture
def order(accepted_order) -> Order:
    accepted = accepted_order(created_at=ACCEPTED_AT)
    services.place_orders([accepted])
    Order.objects.filter(id=accepted.id).update(stored_at=ACCEPTED_AT + timedelta(milliseconds=12))
    return Order.objects.get(id=accepted.id)


def steps(client: Any, order: Order) -> list[tuple[str, int | None]]:
    """The steps whose times come from messages, by name."""
    answer = client.get(f"/orders/{order.id}/timeline")
    assert answer.status_code == 200
    return [(step["name"], step["sincePreviousMs"]) for step in answer.json()["steps"]]


class TestTimeline:
    def test_tells_what_both_services_did(self, client, order):
        settle(reserved(order, announced_at=after(20), decided_at=after(31)))
        order.refresh_from_db()
        settled = (order.settled_at - ACCEPTED_AT) // timedelta(milliseconds=1)

        assert steps(client, order) == [
            ("accepted", None), ("stored", 12), ("announced", 8), ("reserved", 11),
            ("settled", settled - 31),
        ]  # fmt: skip

    def test_names_the_order_and_its_status(self, client, order):
        body = client.get(f"/orders/{order.id}/timeline").json()

        assert (body["orderId"], body["status"]) == (str(order.id), "PENDING")
        assert body["steps"][0]["at"] == "2026-11-23T10:00:00.005Z"

    def test_tells_that_the_stock_was_refused(self, client, order):
        settle(rejected(order, announced_at=after(20), decided_at=after(31), reason="sold out"))

        assert [name for name, _ in steps(client, order)] == [
            "accepted", "stored", "announced", "rejected", "settled",
        ]  # fmt: skip
        assert client.get(f"/orders/{order.id}/timeline").json()["reason"] == "sold out"

    def test_tells_what_was_given_back(self, client, order):
        settle(reserved(order, announced_at=after(20), decided_at=after(31)))
        services.cancel_order(order.id)
        settle(released(order, released_at="2099-01-01T00:00:00Z"))

        assert [name for name, _ in steps(client, order)] == [
            "accepted", "stored", "announced", "reserved", "settled", "cancelled", "released",
        ]  # fmt: skip

    def test_tells_that_a_cancelled_order_had_been_refused(self, client, order):
        services.cancel_order(order.id)
        settle(rejected(order, decided_at=after(31), reason="sold out"))

        assert "rejected" in [name for name, _ in steps(client, order)]

    @pytest.mark.parametrize(
        "moment",
        ["", "yesterday", "2026-11-23T10:00:00", "0001-01-01T00:00:00+14:00",
         "9999-12-31T23:59:59-14:00", "2026-11-23T10:00:00+23:59"],
    )  # fmt: skip
    def test_bears_times_that_are_none(self, client, order, moment):
        settle(reserved(order, announced_at=moment, decided_at=moment))

        assert "reserved" in [name for name, _ in steps(client, order)]

    @pytest.mark.parametrize("has_database", [True, False])
    def test_begins_with_an_order_that_is_not_stored_yet(
        self, client, accepted_order, monkeypatch, has_database
    ):
        accepted = accepted_order()
        cache.keep_copies([accepted])

        def fail(*_arguments: object, **_options: object) -> None:
            raise OperationalError("nobody is there")

        with monkeypatch.context() as away:
            if not has_database:
                away.setattr(connection, "cursor", fail)
            body = client.get(f"/orders/{accepted.id}/timeline").json()

        assert [step["name"] for step in body["steps"]] == ["accepted"]

    def test_is_not_there_for_no_order(self, client):
        answer = client.get(f"/orders/{uuid4()}/timeline")

        assert (answer.status_code, answer.json()["code"]) == (404, "order_not_found")
