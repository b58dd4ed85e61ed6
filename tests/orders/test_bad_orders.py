"""What the order service makes of bad input: a problem, a stable code, and no trace."""

from typing import Any

import pytest
from django.test import Client
from django_redis import get_redis_connection

from orders_project.orders import services
from orders_project.orders.commands import PersistOrders
from orders_project.orders.models import Order
from servicekit.outbox.models import OutgoingEvent
from tests.servicekit.bad_input import MALFORMED, NOT_AN_INTEGER, NOT_AN_OBJECT, cases

pytestmark = pytest.mark.django_db(transaction=True)

PRODUCT_ID = b'"0198c0de-0000-7000-8000-00000000000a"'

NOT_A_UUID = {
    **{each: each.encode() for each in ("1", "true", "null", "[]", "{}", '""', '"lamp"')},
    "without dashes": b'"0198c0de00007000800000000000000a"',
    "with odd dashes": b'"0198-c0de0000-7000-8000-00000000000a"',
    "in braces": b'"{0198c0de-0000-7000-8000-00000000000a}"',
    "a URN": b'"urn:uuid:0198c0de-0000-7000-8000-00000000000a"',
    "padded": b'" 0198c0de-0000-7000-8000-00000000000a "',
    "with a line break": b'"0198c0de-0000-7000-8000-00000000000a\\n"',
    "with NUL": b'"0198c0de-0000-7000-8000-00000000000\\u0000"',
    "in foreign digits": '"\u0660198c0de-0000-7000-8000-00000000000a"'.encode(),
    "an integer of 128 bits": str(2**127).encode(),
}


@pytest.fixture(autouse=True)
def broker(broker_with_queue) -> Any:
    """All is up; only the input is bad."""
    return broker_with_queue


@pytest.fixture
def assert_refused(client: Client, product_service, broker):
    def refused(
        body: bytes, status: int, *codes: str, content_type: str = "application/json"
    ) -> Any:
        keys = get_redis_connection("default").keys()
        answer = client.generic("POST", "/orders", body, content_type=content_type)

        assert answer.status_code == status, answer.content[:300]
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] in codes
        assert not Order.objects.exists()
        assert broker.count(PersistOrders.queue) == 0
        assert product_service.asked == []
        assert set(get_redis_connection("default").keys()) <= set(keys)
        return answer

    return refused


class TestPostOrders:
    @cases(NOT_AN_OBJECT)
    def test_refuses_what_is_not_an_object(self, assert_refused, sent):
        assert_refused(sent, 400, "invalid", "malformed_body")

    @cases(MALFORMED)
    def test_refuses_what_is_malformed(self, assert_refused, sent):
        assert_refused(sent, 400, "malformed_body")

    @cases({**NOT_AN_INTEGER, "zero": b"0", "below zero": b"-5", "2 to the 31st": b"2147483648"})
    def test_refuses_what_is_no_quantity(self, assert_refused, sent):
        quantity = b"" if sent is None else b',"quantity":' + sent

        assert_refused(
            b'{"productId":' + PRODUCT_ID + quantity + b"}", 400, "invalid", "malformed_body"
        )

    @cases(NOT_A_UUID)
    def test_refuses_what_is_no_product_id(self, assert_refused, sent):
        answer = assert_refused(b'{"productId":' + sent + b',"quantity":1}', 400, "invalid")

        assert [error["field"] for error in answer.json()["errors"]] == ["productId"]

    @pytest.mark.parametrize(
        "field", [b"totalPrice", b"status", b"product_id", b"id", b"", b"\\u0000"]
    )
    def test_refuses_a_field_that_nobody_asked_for(self, assert_refused, field):
        assert_refused(
            b'{"productId":%s,"quantity":1,"%s":1}' % (PRODUCT_ID, field), 400, "invalid"
        )

    def test_refuses_a_body_over_64_kib(self, assert_refused):
        assert_refused(b"{}".ljust(64 * 1024 + 1), 413, "body_too_large")

    @pytest.mark.parametrize(
        "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml"]
    )
    def test_refuses_what_is_not_json(self, assert_refused, content_type):
        assert_refused(b"{}", 415, "unsupported_media_type", content_type=content_type)


class TestPostCancel:
    @cases({name: sent for name, sent in {**NOT_AN_OBJECT, **MALFORMED}.items() if sent})
    def test_refuses_what_is_no_empty_object(self, client, accepted_order, sent):
        order = accepted_order()
        services.place_orders([order])
        answer = client.generic("POST", f"/orders/{order.id}/cancel", sent, "application/json")

        assert answer.status_code == 400
        assert answer.json()["code"] in ("invalid", "malformed_body")
        assert Order.objects.get().status == Order.Status.PENDING
        assert not OutgoingEvent.objects.exists()


class TestAnyRoute:
    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    def test_that_leads_nowhere_is_404_by_any_method(self, client, method):
        answer = client.generic(method, "/nowhere", b"{}", "application/json")

        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
