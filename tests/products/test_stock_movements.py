"""Restocking, correcting, and the ledger of a product's stock."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.db import connection
from django.test import Client

from products_project.products import cache, services
from products_project.products.models import Product, StockMovement
from servicekit.contracts.events import OrderCreated
from servicekit.identifiers import new_id
from servicekit.outbox.models import OutgoingEvent
from tests.products.answers import reserve
from tests.servicekit.bad_input import BAD_PAGES

RESTOCK = {"delta": 5, "reason": "restock"}


@pytest.fixture
def client() -> Client:
    return Client(enforce_csrf_checks=True)


def move(client: Client, product_id: UUID, body: Any, **headers: str) -> Any:
    return client.post(
        f"/products/{product_id}/stock-movements",
        msgspec.json.encode(body),
        content_type="application/json",
        headers=headers,
    )


@pytest.mark.django_db
class TestPostStockMovements:
    def test_adds_units(self, client, lamp):
        answer = move(client, lamp.id, RESTOCK)

        body = answer.json()
        assert answer.status_code == 201
        assert (body["delta"], body["reason"], body["qtyAfter"]) == (5, "restock", 15)
        assert body["productId"] == str(lamp.id)
        assert client.get(f"/products/{lamp.id}").json()["qty"] == 15

    def test_takes_units(self, client, lamp):
        answer = move(client, lamp.id, {"delta": -10, "reason": "correction"})

        assert (answer.status_code, answer.json()["qtyAfter"]) == (201, 0)

    def test_announces_the_new_stock(self, client, lamp):
        move(client, lamp.id, RESTOCK)

        event = OutgoingEvent.objects.latest("id")
        body = msgspec.json.decode(event.body)
        assert (event.routing_key, body["qty"], body["version"]) == ("product.updated", 15, 2)

    def test_never_goes_below_zero(self, client, lamp):
        answer = move(client, lamp.id, {"delta": -11, "reason": "correction"})

        assert (answer.status_code, answer.json()["code"]) == (409, "insufficient_stock")
        assert answer.json()["available"] == 10
        assert lamp.movements.count() == 1

    def test_never_exceeds_what_can_be_stored(self, client, lamp):
        answer = move(client, lamp.id, {"delta": 2**31 - 1, "reason": "restock"})

        assert (answer.status_code, answer.json()["code"]) == (409, "stock_too_large")

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"delta": 0, "reason": "restock"}, "delta"),
            ({"delta": -1, "reason": "restock"}, "delta"),
            ({"delta": "5", "reason": "restock"}, "delta"),
            ({"delta": 2**31, "reason": "restock"}, "delta"),
            ({"reason": "restock"}, "delta"),
            ({"delta": 5}, "reason"),
            ({"delta": 5, "reason": "order"}, "reason"),
            ({"delta": 5, "reason": "restock", "qty": 1}, "qty"),
        ],
    )
    def test_refuses_what_is_no_movement(self, client, lamp, body, field):
        answer = move(client, lamp.id, body)

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
        assert [error["field"] for error in answer.json()["errors"]] == [field]

    def test_refuses_a_product_that_is_not_there(self, client):
        answer = move(client, new_id(), RESTOCK)

        assert (answer.status_code, answer.json()["code"]) == (404, "product_not_found")

    def test_refuses_a_product_that_is_not_sold_any_more(self, client, lamp):
        services.archive_product(lamp.id)

        answer = move(client, lamp.id, RESTOCK)

        assert (answer.status_code, answer.json()["code"]) == (404, "product_archived")

    @pytest.mark.django_db(transaction=True)
    def test_is_to_be_tried_again_while_the_database_takes_no_writes(self, client, lamp):
        with connection.cursor() as cursor:
            # As a whole database is during a failover.
            cursor.execute("SET default_transaction_read_only = on")
        try:
            answer = move(client, lamp.id, RESTOCK)
        finally:
            connection.close()

        assert (answer.status_code, answer.json()["code"]) == (503, "temporarily_unavailable")


@pytest.mark.django_db
class TestAnIdempotencyKey:
    def test_gives_the_same_answer_again_and_moves_once(self, client, lamp):
        first = move(client, lamp.id, RESTOCK, idempotency_key='"abc"')
        services.move_stock(product_id=lamp.id, delta=1, reason="correction")
        second = move(client, lamp.id, RESTOCK, idempotency_key="abc")

        assert (first.status_code, second.status_code) == (201, 201)
        assert first.content == second.content
        lamp.refresh_from_db()
        assert lamp.qty == 16

    @pytest.mark.usefixtures("without_redis")
    def test_holds_without_redis(self, client, lamp):
        answers = [move(client, lamp.id, RESTOCK, idempotency_key="abc") for _ in range(2)]

        assert answers[0].content == answers[1].content
        lamp.refresh_from_db()
        assert lamp.qty == 15

    @pytest.mark.parametrize(
        "other", [{"delta": 6, "reason": "restock"}, {"delta": 5, "reason": "correction"}]
    )
    def test_is_refused_for_another_body(self, client, lamp, other):
        move(client, lamp.id, RESTOCK, idempotency_key="abc")

        answer = move(client, lamp.id, other, idempotency_key="abc")

        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
        lamp.refresh_from_db()
        assert lamp.qty == 15

    def test_is_refused_for_another_product(self, client, lamp):
        other = services.create_product(name="Chair", price=1, qty=1)
        move(client, lamp.id, RESTOCK, idempotency_key="abc")

        answer = move(client, other.id, RESTOCK, idempotency_key="abc")

        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")

    @pytest.mark.parametrize("key", ["", '""', '"abc', 'abc"', "a b", '"a", "b"', "a" * 256, "é"])
    def test_is_refused_when_it_is_malformed(self, client, lamp, key):
        answer = move(client, lamp.id, RESTOCK, idempotency_key=key)

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_idempotency_key")
        assert lamp.movements.count() == 1

    def test_may_be_used_again_after_a_refusal(self, client, lamp):
        taking = {"delta": -11, "reason": "correction"}
        assert move(client, lamp.id, taking, idempotency_key="abc").status_code == 409
        services.move_stock(product_id=lamp.id, delta=1, reason="restock")

        assert move(client, lamp.id, taking, idempotency_key="abc").status_code == 201


@pytest.mark.django_db(transaction=True)
class TestTheSameMovementFromManyAtOnce:
    REQUESTS = 20

    def rush(self, send: Any) -> list[Any]:
        everybody = threading.Barrier(self.REQUESTS, timeout=10)

        def one(number: int) -> Any:
            everybody.wait()
            try:
                return send(number)
            finally:
                connection.close()

        with ThreadPoolExecutor(self.REQUESTS) as pool:
            return list(pool.map(one, range(self.REQUESTS)))

    def test_without_a_key_it_is_done_as_often_as_it_was_sent(self):
        # Proves that the requests of the test below would otherwise all count.
        lamp = services.create_product(name="Lamp", price=1, qty=0)
        self.rush(lambda _: move(Client(), lamp.id, RESTOCK))

        lamp.refresh_from_db()
        assert lamp.qty == 5 * self.REQUESTS

    def test_with_a_key_it_is_done_once(self):
        lamp = services.create_product(name="Lamp", price=1, qty=0)
        answers = self.rush(lambda _: move(Client(), lamp.id, RESTOCK, idempotency_key="abc"))

        lamp.refresh_from_db()
        assert lamp.qty == 5
        assert {(answer.status_code, answer.content) for answer in answers} == {
            (201, answers[0].content)
        }

    def test_with_a_key_for_two_products_it_is_done_for_one(self):
        products = [services.create_product(name="Lamp", price=1, qty=0) for _ in range(2)]
        answers = self.rush(
            lambda number: move(Client(), products[number % 2].id, RESTOCK, idempotency_key="abc")
        )

        assert {answer.status_code for answer in answers} == {201, 422}
        assert sorted(Product.objects.values_list("qty", flat=True)) == [0, 5]


@pytest.mark.django_db
class TestGetStockMovements:
    def test_lists_every_change_newest_first(self, client, lamp):
        order_id = str(new_id())
        reserve([OrderCreated(order_id=order_id, product_id=lamp.id, quantity=3)])
        services.move_stock(product_id=lamp.id, delta=5, reason=StockMovement.Reason.RESTOCK)

        listed = client.get(f"/products/{lamp.id}/stock-movements").json()

        assert [(each["delta"], each["reason"], each["qtyAfter"]) for each in listed] == [
            (5, "restock", 12),
            (-3, "order", 7),
            (10, "initial", 10),
        ]
        assert [each.get("orderId") for each in listed] == [None, order_id, None]

    def test_leads_from_page_to_page(self, client, lamp):
        for _ in range(4):
            services.move_stock(product_id=lamp.id, delta=1, reason="restock")

        found, path = [], f"/products/{lamp.id}/stock-movements?limit=2"
        while path:
            answer = client.get(path)
            found += [each["qtyAfter"] for each in answer.json()]
            path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")

        assert found == [14, 13, 12, 11, 10]

    def test_is_there_for_an_archived_product(self, client, lamp):
        services.archive_product(lamp.id)

        assert len(client.get(f"/products/{lamp.id}/stock-movements").json()) == 1

    def test_is_empty_for_a_product_that_never_had_stock(self, client):
        product = services.create_product(name="Lamp", price=1, qty=0)

        assert client.get(f"/products/{product.id}/stock-movements").json() == []

    def test_is_not_there_for_no_product(self, client):
        answer = client.get(f"/products/{new_id()}/stock-movements")

        assert (answer.status_code, answer.json()["code"]) == (404, "product_not_found")

    @pytest.mark.parametrize("query", BAD_PAGES.values(), ids=BAD_PAGES.keys())
    def test_refuses_a_page_of_nonsense(self, client, lamp, query):
        answer = client.get(f"/products/{lamp.id}/stock-movements?{query}")

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


@pytest.mark.django_db
class TestDeleteProduct:
    def test_archives_the_product(self, client, lamp):
        client.get(f"/products/{lamp.id}")

        assert client.delete(f"/products/{lamp.id}").status_code == 204

        answer = client.get(f"/products/{lamp.id}")
        assert (answer.status_code, answer.json()["code"]) == (404, "product_archived")
        assert client.get("/products").json() == []

    def test_announces_it(self, client, lamp):
        client.delete(f"/products/{lamp.id}")

        event = OutgoingEvent.objects.latest("id")
        body = msgspec.json.decode(event.body)
        assert (event.routing_key, body["id"], body["version"]) == (
            "product.archived", str(lamp.id), 2,
        )  # fmt: skip

    def test_is_done_once_however_often_it_is_asked_for(self, client, lamp):
        assert [client.delete(f"/products/{lamp.id}").status_code for _ in range(2)] == [204, 204]
        assert OutgoingEvent.objects.filter(routing_key="product.archived").count() == 1

    def test_keeps_a_slow_reader_from_bringing_it_back(self, client, lamp):
        seen_before = Product.objects.get(id=lamp.id)
        client.delete(f"/products/{lamp.id}")

        cache.store([seen_before], read_at=time.time())

        assert client.get(f"/products/{lamp.id}").status_code == 404

    def test_rejects_the_orders_that_were_on_their_way(self, client, lamp):
        client.delete(f"/products/{lamp.id}")
        handled = reserve([OrderCreated(order_id=str(new_id()), product_id=lamp.id, quantity=1)])

        [answer] = handled.answers
        assert answer.routing_key == "stock.decided"
        [decision] = msgspec.json.decode(answer.body)["decisions"]
        assert (decision["outcome"], decision["reason"]) == ("REJECTED", "product_archived")

    def test_cannot_be_changed_any_more(self, client, lamp):
        client.delete(f"/products/{lamp.id}")

        answer = client.patch(
            f"/products/{lamp.id}", b'{"price": 1}', content_type="application/json"
        )
        assert (answer.status_code, answer.json()["code"]) == (404, "product_archived")

    def test_refuses_a_product_that_is_not_there(self, client):
        answer = client.delete(f"/products/{new_id()}")

        assert (answer.status_code, answer.json()["code"]) == (404, "product_not_found")


@pytest.mark.django_db
class TestIfMatch:
    def patch(self, client: Client, product: Product, tag: str) -> Any:
        return client.patch(
            f"/products/{product.id}",
            b'{"price": 5}',
            content_type="application/json",
            headers={"if-match": tag},
        )

    @pytest.mark.parametrize("tag", ['"1"', "*", '"9", "1"', '"9","1"'])
    def test_lets_a_change_pass_that_knows_the_product_as_it_is(self, client, lamp, tag):
        answer = self.patch(client, lamp, tag)

        assert (answer.status_code, answer.json()["price"]) == (200, 5)

    @pytest.mark.parametrize(
        "tag", ['"2"', 'W/"1"', "1", '"01"', '""', '"abc"', '"' + "9" * 40 + '"']
    )
    def test_refuses_a_change_that_knows_another_one(self, client, lamp, tag):
        answer = self.patch(client, lamp, tag)

        assert (answer.status_code, answer.json()["code"]) == (412, "version_mismatch")
        lamp.refresh_from_db()
        assert (lamp.price, lamp.version) == (190_000, 1)

    def test_is_the_tag_of_the_answer_before(self, client, lamp):
        seen = client.get(f"/products/{lamp.id}")["ETag"]
        first, second = (self.patch(client, lamp, seen) for _ in range(2))

        assert (first.status_code, second.status_code) == (200, 412)
        assert self.patch(client, lamp, first["ETag"]).status_code == 200

    def test_keeps_a_product_from_being_archived_unseen(self, client, lamp):
        path = f"/products/{lamp.id}"

        assert client.delete(path, headers={"if-match": '"2"'}).status_code == 412
        assert client.get(path).status_code == 200
        assert client.delete(path, headers={"if-match": '"1"'}).status_code == 204
