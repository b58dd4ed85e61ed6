"""Cancelling orders, in any order of events."""

import itertools
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from django.test import Client
from django.utils import timezone

from orders_project.orders import cache, services
from orders_project.orders.models import Order
from servicekit.identifiers import new_id
from servicekit.outbox.models import OutgoingEvent
from tests.orders import stock_news
from tests.orders.stock_news import cancelled, refusals, rejected, released, settle

pytestmark = pytest.mark.django_db


def reserved(order: Order) -> Any:
    return stock_news.reserved(order, decided_at="2026-11-23T10:00:00.000Z")


def cancel(client: Client, order_id: UUID) -> Any:
    # As `curl -X POST` does it: without a body, and without a word about its type.
    return client.generic("POST", f"/orders/{order_id}/cancel")


def cancellations() -> list[dict[str, object]]:
    rows = OutgoingEvent.objects.filter(routing_key="order.cancelled")
    return [msgspec.json.decode(row.body) for row in rows]


class TestPostCancel:
    @pytest.mark.parametrize("is_confirmed", [False, True])
    def test_cancels_an_order_and_announces_it_once_however_often_it_is_asked_for(
        self, client, order, is_confirmed
    ):
        if is_confirmed:
            settle(reserved(order))
        answers = [cancel(client, order.id) for _ in range(3)]

        assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {
            (200, "CANCELLED")
        }
        assert {each.content for each in answers} == {client.get(f"/orders/{order.id}").content}
        [event] = cancellations()
        assert event.pop("cancelledAt").endswith("Z")
        assert event == {
            "orderId": str(order.id), "productId": str(order.product_id), "quantity": 2,
        }  # fmt: skip

    def test_refuses_an_order_that_was_rejected(self, client, order):
        settle(rejected(order))

        answer = cancel(client, order.id)

        assert (answer.status_code, answer.json()["code"]) == (409, "order_rejected")
        assert cancellations() == []

    @pytest.mark.parametrize(
        ("order_id", "status", "code"),
        [(uuid4(), 404, "order_not_found"), (None, 503, "order_not_visible_yet")],
    )
    def test_refuses_an_order_that_is_not_there_or_may_be_on_its_way(
        self, client, order_id, status, code
    ):
        answer = cancel(client, order_id or new_id())

        assert (answer.status_code, answer.json()["code"]) == (status, code)

    def test_cancels_an_order_that_is_accepted_and_not_stored_yet(self, client, accepted_order):
        accepted = accepted_order()
        cache.keep_copies([accepted])

        answer = cancel(client, accepted.id)
        # Now the worker comes with it.
        services.place_orders([accepted])

        assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")
        assert Order.objects.get(id=accepted.id).status == "CANCELLED"
        assert [event["orderId"] for event in cancellations()] == [str(accepted.id)]

    @pytest.mark.parametrize(
        "body",
        [{"why": "late"}, *({"reason": bad} for bad in ("", " ", None, 7, "x\0", "x" * 501))],
    )
    def test_takes_a_reason_and_nothing_else(self, client, order, body):
        refused = client.post(f"/orders/{order.id}/cancel", body, content_type="application/json")

        assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
        assert cancellations() == []

    # A key is read over a connection that is given back.
    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("is_stored", [False, True])
    @pytest.mark.parametrize("said", [{}, {"reason": "late"}])
    def test_keeps_who_was_first_and_why(self, client, api_key, accepted_order, is_stored, said):
        accepted = accepted_order()
        (services.place_orders if is_stored else cache.keep_copies)([accepted])
        path, key = f"/orders/{accepted.id}/cancel", api_key("orders:cancel")
        first = client.post(path, said, content_type="application/json", headers=key)
        client.post(path, {"reason": "again"}, content_type="application/json")
        services.cancel_order(accepted.id, by="admin", reason="again")

        found = client.get(f"/orders/{accepted.id}").json()
        assert [first.json()] == client.get(f"/orders?productId={accepted.product_id}").json()
        assert first.json() == found
        assert found["cancellation"] == {
            "cancelledAt": cancellations()[0]["cancelledAt"], "by": "API key a partner", **said,
        }  # fmt: skip

    def test_of_nobody_in_particular_is_an_api_clients(self, client, order):
        assert "cancellation" not in client.get(f"/orders/{order.id}").json()
        assert cancel(client, order.id).json()["cancellation"]["by"] == "API client"

    def test_takes_an_empty_body_that_is_said_to_be_json(self, client, order):
        path = f"/orders/{order.id}/cancel"
        answer = client.generic("POST", path, b"", CONTENT_TYPE="application/json")

        assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")

    @pytest.mark.parametrize("body", [b"", b"{}"])
    @pytest.mark.parametrize(
        "content_type",
        ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"],
    )
    def test_cannot_be_sent_by_a_form(self, client, order, content_type, body):
        path = f"/orders/{order.id}/cancel"
        # Not as an argument: for an empty body Django's client would leave it out.
        answer = client.generic("POST", path, body, CONTENT_TYPE=content_type)

        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
        assert cancellations() == []

    @pytest.mark.parametrize(
        "headers",
        [
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Origin": "https://elsewhere.example"},
            {"Origin": "http://testserver:8000"},
            {"Origin": "null"},
        ],
    )
    def test_cannot_be_sent_by_a_page_of_another_site(self, client, order, headers):
        answer = client.generic("POST", f"/orders/{order.id}/cancel", headers=headers)

        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
        assert cancellations() == []

    @pytest.mark.parametrize(
        "headers",
        [
            {"Accept": "text/html", "Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"},
            {"Accept": "text/html", "Origin": "http://testserver"},
            {"Origin": "https://trusted.example", "Sec-Fetch-Site": "cross-site"},
        ],
    )
    def test_is_sent_by_a_page_of_ours(self, client, order, headers, settings):
        settings.CSRF_TRUSTED_ORIGINS = ["https://trusted.example"]
        answer = client.generic("POST", f"/orders/{order.id}/cancel", headers=headers)

        assert answer.status_code == 200
        assert len(cancellations()) == 1

    def test_drops_the_list_that_shows_the_old_status(self, client, order):
        listed = f"/orders?productId={order.product_id}"
        assert [each["status"] for each in client.get(listed).json()] == ["PENDING"]

        cancel(client, order.id)

        assert [each["status"] for each in client.get(listed).json()] == ["CANCELLED"]


class TestACancelledOrder:
    # What the products worker may say, and whether anything more is to be heard about its stock: if
    # so, the watchdog asks again.
    @pytest.mark.parametrize(
        ("outcomes", "is_complete"),
        [
            ([], False),
            ([reserved], False),
            ([reserved, reserved], False),
            ([released], True),
            ([reserved, released], True),
            ([released, reserved], True),
            ([rejected], True),
            ([cancelled], True),
        ],
    )
    @pytest.mark.parametrize("in_one_batch", [True, False])
    def test_stays_cancelled_and_is_asked_about_again_until_its_stock_is_back(
        self, order, outcomes, is_complete, in_one_batch
    ):
        services.cancel_order(order.id)
        news = [outcome(order) for outcome in outcomes]
        for batch in [news] if in_one_batch else [[each] for each in news]:
            assert refusals(settle(*batch)) == []

        order.refresh_from_db()
        assert order.status == Order.Status.CANCELLED
        assert (order.recheck_at is None) == is_complete

    def test_that_was_confirmed_before_is_asked_about_until_its_stock_is_back(self, order):
        settle(reserved(order))
        order.refresh_from_db()
        assert order.recheck_at is None
        services.cancel_order(order.id)
        order.refresh_from_db()
        assert order.recheck_at > timezone.now() + timedelta(seconds=25)

        # The confirmation once more: it says nothing of the release.
        settle(reserved(order))
        order.refresh_from_db()
        assert order.recheck_at is not None
        settle(released(order))
        order.refresh_from_db()
        assert order.recheck_at is None

    @pytest.mark.parametrize("order_of_events", [*itertools.permutations(["reserved", "cancel"])])
    def test_is_cancelled_in_any_order_of_events(self, order, order_of_events):
        for event in order_of_events:
            if event == "cancel":
                services.cancel_order(order.id)
            else:
                assert refusals(settle(reserved(order))) == []
        assert refusals(settle(released(order))) == []

        order.refresh_from_db()
        assert order.status == Order.Status.CANCELLED
        assert order.decided_at is not None
        assert order.released_at is not None


class TestRecheckNow:
    """What the admin does about an order that seems to be stuck: the watchdog asks at once."""

    @staticmethod
    def due() -> list[UUID]:
        return [order.id for order in Order.objects.claim_overdue(10)]

    @pytest.mark.parametrize("is_cancelled", [False, True])
    def test_has_an_order_or_the_stock_of_a_cancelled_one_asked_about(self, order, is_cancelled):
        if is_cancelled:
            services.cancel_order(order.id)
        assert self.due() == []

        assert Order.objects.recheck_now([order.id]) == 1
        assert self.due() == [order.id]

    def test_does_nothing_for_what_is_settled(self, order):
        settle(reserved(order))

        assert Order.objects.recheck_now([order.id, UUID(int=7)]) == 0
        assert self.due() == []

    @pytest.mark.parametrize("answer", [released, rejected, cancelled])
    def test_does_nothing_for_a_cancelled_order_whose_stock_is_settled(self, order, answer):
        services.cancel_order(order.id)
        settle(answer(order))

        assert Order.objects.recheck_now([order.id]) == 0
        assert self.due() == []
