"""Restocking, correcting, and the ledger of a product's stock."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar
from uuid import UUID

import msgspec
import pytest
from django.db import connection, transaction
from django.test import Client

from products_project.products import cache, figures, services
from products_project.products.models import Product, Sales, StockMovement
from servicekit.contracts.events import OrderCreated
from servicekit.database.figures import RANGES
from servicekit.identifiers import new_id
from servicekit.outbox.models import OutgoingEvent
from servicekit.timestamps import now_in_milliseconds
from tests.products.answers import reserve, told
from tests.servicekit.bad_input import BAD_PAGES, cases

RESTOCK = {"delta": 5, "reason": "restock"}


def move(client: Client, product_id: UUID, body: Any, **headers: str) -> Any:
    return client.post(
        f"/products/{product_id}/stock-movements",
        msgspec.json.encode(body),
        content_type="application/json",
        headers=headers,
    )


@pytest.mark.django_db
class TestPostStockMovements:
    @pytest.mark.parametrize(("delta", "reason"), [(5, "restock"), (-10, "correction")])
    def test_adds_or_takes_units_and_announces_the_new_stock(self, client, lamp, delta, reason):
        answer = move(client, lamp.id, {"delta": delta, "reason": reason})

        body = answer.json()
        assert answer.status_code == 201
        assert (body["delta"], body["reason"], body["qtyAfter"]) == (delta, reason, 10 + delta)
        assert body["productId"] == str(lamp.id)
        assert client.get(f"/products/{lamp.id}").json()["qty"] == 10 + delta
        event = OutgoingEvent.objects.latest("id")
        told = msgspec.json.decode(event.body)
        assert (event.routing_key, told["version"]) == ("product.updated", 2)
        assert told["qty"] == 10 + delta

    @pytest.mark.parametrize(
        ("delta", "problem"),
        [
            (-11, {"code": "insufficient_stock", "available": 10}),
            (2**31 - 1, {"code": "stock_too_large"}),
        ],
    )
    def test_keeps_the_stock_within_its_bounds(self, client, lamp, delta, problem):
        reason = "restock" if delta > 0 else "correction"
        answer = move(client, lamp.id, {"delta": delta, "reason": reason})

        assert answer.status_code == 409
        assert answer.json().items() >= problem.items()
        assert lamp.movements.count() == 1

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

    def test_is_refused_for_another_body_and_for_another_product(self, client, lamp):
        chair = services.create_product(name="Chair", price=1, qty=1)
        move(client, lamp.id, RESTOCK, idempotency_key="abc")

        changes = [(lamp, {"delta": 6}), (lamp, {"reason": "correction"}), (chair, {})]
        for product, change in changes:
            answer = move(client, product.id, {**RESTOCK, **change}, idempotency_key="abc")
            assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
        assert sorted(Product.objects.values_list("qty", flat=True)) == [1, 15]

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
        everybody = threading.Barrier(self.REQUESTS, timeout=60)

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

    def test_is_empty_for_a_product_that_never_had_stock(self, client):
        product = services.create_product(name="Lamp", price=1, qty=0)

        assert client.get(f"/products/{product.id}/stock-movements").json() == []

    @cases(BAD_PAGES)
    def test_refuses_a_page_of_nonsense(self, client, lamp, sent):
        answer = client.get(f"/products/{lamp.id}/stock-movements?{sent}")

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


@pytest.mark.django_db
class TestDeleteProduct:
    def test_archives_the_product_and_announces_it_once_however_often_it_is_asked_for(
        self, client, lamp
    ):
        path = f"/products/{lamp.id}"
        client.get(path)

        assert [client.delete(path).status_code for _ in range(2)] == [204, 204]

        assert client.get("/products").json() == []
        [event] = OutgoingEvent.objects.filter(routing_key="product.archived")
        body = msgspec.json.decode(event.body)
        assert (body["id"], body["version"]) == (str(lamp.id), 2)
        assert len(client.get(f"{path}/stock-movements").json()) == 1

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


@pytest.mark.django_db
class TestRestoreProduct:
    def test_sells_it_again_and_announces_it_once_however_often_it_is_asked_for(self, client, lamp):
        path = f"/products/{lamp.id}"
        client.delete(path)
        assert client.get(path).status_code == 404

        answers = [client.generic("POST", f"{path}/restore") for _ in range(2)]

        assert [(each.status_code, each["ETag"]) for each in answers] == [(200, '"3"')] * 2
        assert answers[0].json() == client.get(path).json() == client.get("/products").json()[0]
        [event] = OutgoingEvent.objects.filter(routing_key="product.updated")
        body = msgspec.json.decode(event.body)
        assert (body["id"], body["version"], body["qty"]) == (str(lamp.id), 3, 10)
        [(outcome, _, _)] = told(
            reserve([OrderCreated(order_id=str(new_id()), product_id=lamp.id, quantity=1)])
        )
        assert outcome == "RESERVED"

    def test_cannot_be_asked_for_by_a_page_of_another_site(self, client, lamp):
        client.delete(f"/products/{lamp.id}")
        headers = {"Sec-Fetch-Site": "cross-site"}
        answer = client.generic("POST", f"/products/{lamp.id}/restore", headers=headers)

        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
        assert client.get(f"/products/{lamp.id}").status_code == 404


@pytest.mark.django_db
class TestAProductThatIsNotThere:
    # Of one that is archived, the history is kept; and to archive it again is no error.
    ASK: ClassVar[dict[str, Any]] = {
        "GET": (lambda client, path: client.get(path), "product_archived"),
        "PATCH": (
            lambda client, path: client.patch(path, {"price": 1}, content_type="application/json"),
            "product_archived",
        ),
        "DELETE": (lambda client, path: client.delete(path), 204),
        "POST restore": (lambda client, path: client.generic("POST", f"{path}/restore"), 200),
        "POST a movement": (
            lambda client, path: move(client, path.rpartition("/")[2], RESTOCK), "product_archived",
        ),
        "GET movements": (lambda client, path: client.get(f"{path}/stock-movements"), 200),
    }  # fmt: skip

    @pytest.mark.parametrize(("ask", "of_archived"), ASK.values(), ids=ASK.keys())
    def test_is_told_apart_from_one_that_is_not_sold_any_more(self, client, lamp, ask, of_archived):
        services.archive_product(lamp.id)
        there, nowhere = (ask(client, f"/products/{each}") for each in (lamp.id, new_id()))

        assert (nowhere.status_code, nowhere.json()["code"]) == (404, "product_not_found")
        assert nowhere["Content-Type"] == "application/problem+json"
        is_refused = there.status_code == 404
        assert (there.json()["code"] if is_refused else there.status_code) == of_archived


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


@pytest.mark.django_db(transaction=True)
class TestCountingMovements:
    @staticmethod
    def units_sold() -> int:
        shown = RANGES["hour"]
        return figures.sold(shown, shown.since(now_in_milliseconds()), best=1).total.units

    # Without waiting for those who write, which proves that the test can fail.
    @pytest.mark.parametrize("waits", [True, False])
    def test_skips_none_that_is_committed_late(self, lamp, monkeypatch, waits):
        monkeypatch.setattr(figures, "_PATIENCE_SECONDS", 0.1)
        if not waits:
            monkeypatch.setattr(figures, "_writers", set)
        is_stored, may_commit = threading.Event(), threading.Event()

        def store_late() -> None:
            with transaction.atomic():
                facts = {"delta": -1, "qty_after": 9, "reason": "order", "order_id": "late"}
                lamp.movements.create(**facts)
                is_stored.set()
                may_commit.wait(60)
            connection.close()

        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(store_late)
            assert is_stored.wait(60)
            reserve([OrderCreated(order_id="early", product_id=lamp.id, quantity=2)])
            figures.count()
            assert self.units_sold() == 2
            may_commit.set()
            late.result(60)

        for _ in range(2):
            assert self.units_sold() == (3 if waits else 2)
            figures.count()

    def test_counts_each_once_however_many_count(self, lamp):
        def count() -> None:
            figures.count()
            figures.merge()
            connection.close()

        with ThreadPoolExecutor(3) as pool:
            for _ in range(5):
                reserve([OrderCreated(order_id=new_id(), product_id=lamp.id, quantity=1)])
                list(pool.map(lambda _: count(), range(3)))

        figures.count()
        figures.merge()
        assert self.units_sold() == 5
        assert not Sales.objects.filter(period=0).exists()

    def test_merges_a_backlog_in_steps(self, lamp, monkeypatch):
        monkeypatch.setattr("servicekit.database.figures.MERGED_TOGETHER", 2)
        for _ in range(3):
            reserve([OrderCreated(order_id=new_id(), product_id=lamp.id, quantity=1)])
            figures.count()

        assert figures.merge()
        assert Sales.objects.filter(period=0).count() == 1
        assert not figures.merge()
        assert not Sales.objects.filter(period=0).exists()
        assert self.units_sold() == 3
