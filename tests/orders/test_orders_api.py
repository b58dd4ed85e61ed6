"""Reading orders over HTTP."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone
from django_redis import get_redis_connection

from orders_project.orders import cache, services
from orders_project.orders.models import Order
from orders_project.orders.placement.intake import order_id_of
from servicekit.http.deadline import DeadlineExceeded
from servicekit.identifiers import new_id
from servicekit.timestamps import now_in_milliseconds
from tests.orders.stock_news import reserved, settle
from tests.servicekit.bad_input import BAD_PAGES, cases

pytestmark = pytest.mark.django_db

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture
def product_id() -> UUID:
    return new_id()


@pytest.fixture
def place(accepted_order, product_id) -> Callable[..., list[str]]:
    """Return a function that stores orders and returns their ids, newest first."""

    def stored(count: int = 1, **facts: object) -> list[str]:
        orders = [accepted_order(**{"product_id": product_id, **facts}) for _ in range(count)]
        services.place_orders(orders)
        return [str(order.id) for order in orders][::-1]

    return stored


def id_of_age(seconds: int) -> UUID:
    return UUID(int=new_id().int - (seconds * 1000 << 80))


def ids(answer: Any) -> list[str]:
    return [order["id"] for order in answer.json()]


class TestGetOrders:
    def test_lists_the_orders_of_a_product_newest_first(self, client, place, product_id):
        placed = place(5)

        answer = client.get(f"/orders?productId={product_id}")

        assert ids(answer) == placed
        assert "Link" not in answer
        assert answer["Content-Type"] == "application/json; charset=utf-8"

    def test_tells_of_each_what_the_order_itself_tells(self, client, place, product_id):
        [placed] = place()

        [listed] = client.get(f"/orders?productId={product_id}").json()

        assert listed == client.get(f"/orders/{placed}").json()

    def test_is_a_bare_empty_list_when_there_are_none(self, client):
        assert client.get(f"/orders?productId={new_id()}").json() == []

    def test_lists_the_orders_of_all_products_or_of_one(self, client, place):
        [first] = place(product_id=new_id())
        [second] = place()

        assert ids(client.get("/orders")) == [second, first]
        product_id = client.get(f"/orders/{second}").json()["productId"]
        assert ids(client.get(f"/orders?productId={product_id}")) == [second]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 500])
    def test_leads_through_all_pages(self, client, place, product_id, limit):
        placed = place(7)
        seen: list[str] = []
        address = f"/orders?productId={product_id}&limit={limit}"
        while address:
            answer = client.get(address)
            seen += ids(answer)
            link = re.fullmatch(r'<([^>]+)>; rel="next"', answer.get("Link", ""))
            address = link.group(1) if link else ""

        assert seen == placed

    def test_leads_on_from_a_first_page_that_is_cached(self, client, place, product_id):
        placed = place(51)
        for _ in range(2):
            first = client.get(f"/orders?productId={product_id}")
        second = client.get(re.search("<([^>]+)>", first["Link"]).group(1))

        assert ids(first) + ids(second) == placed

    def test_is_unavailable_when_the_time_is_over_before_the_cache_answers(
        self, client, product_id, monkeypatch
    ):
        def too_late(_product_id: UUID) -> None:
            raise DeadlineExceeded

        monkeypatch.setattr(cache, "peek_first_page", too_late)
        answer = client.get(f"/orders?productId={product_id}")

        assert (answer.status_code, answer.json()["code"]) == (503, "temporarily_unavailable")
        assert int(answer["Retry-After"]) > 0

    def test_shows_those_of_one_status_only(self, client, place, product_id):
        pending, confirmed = place(2)
        Order.objects.filter(id=confirmed).update(
            status=Order.Status.CONFIRMED, settled_at=timezone.now()
        )

        by_status = {"CONFIRMED": [confirmed], "PENDING": [pending], "REJECTED": []}
        for status, wanted in by_status.items():
            answer = client.get(f"/orders?productId={product_id}&status={status}")
            assert ids(answer) == wanted

    @pytest.mark.parametrize(
        "query",
        [
            "productId=",
            "productId=1",
            "productId=true",
            "productId=0198c0de00007000800000000000000a",
            "productId=%7B0198c0de-0000-7000-8000-00000000000a%7D",
            "productId=0198c0de-0000-7000-8000-00000000000a%0A",
            "productId=%00",
            *(f"status={status}" for status in ("", "pending", "DONE", "%00")),
            "createdAfter=",
            "createdAfter=yesterday",
            "createdAfter=2026-11-23",
            "createdAfter=2026-11-23T10:00:00",
            "createdBefore=2026-13-23T10:00:00Z",
            "createdBefore=2026-11-23T10:00:00%20Z",
            "createdBefore=%00",
            # One that is misspelt would show everybody's orders.
            "product_id=0198c0de-0000-7000-8000-00000000000a",
        ],
    )
    def test_refuses_a_filter_of_nonsense(self, client, query):
        answer = client.get(f"/orders?{query}")

        assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
        assert answer.json()["code"] == "invalid"
        assert [error["field"] for error in answer.json()["errors"]] == [query.split("=")[0]]

    @pytest.mark.parametrize(
        ("query", "numbers"),
        [
            ("createdAfter=2026-11-23T10:00:01.000Z", [2, 3]),
            ("createdBefore=2026-11-23T10:00:02Z", [0, 1]),
            ("createdAfter=2026-11-23T11:00:00%2B01:00&createdBefore=2026-11-23T10:00:03Z", [1, 2]),
        ],
    )
    def test_shows_those_of_a_time(self, client, accepted_order, query, numbers):
        start = datetime(2026, 11, 23, 10, tzinfo=UTC)
        placed = [accepted_order(created_at=start + timedelta(seconds=n)) for n in range(4)]
        services.place_orders(placed)

        answer = client.get(f"/orders?{query}")

        assert ids(answer) == [str(placed[n].id) for n in reversed(numbers)]

    def test_pages_through_orders_of_the_same_millisecond(self, client, accepted_order):
        at = now_in_milliseconds()
        placed = [accepted_order(created_at=at, id=uuid4()) for _ in range(5)]
        services.place_orders(placed)

        found, path = [], "/orders?limit=2"
        while path:
            answer = client.get(path)
            found += ids(answer)
            path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")

        assert found == sorted((str(order.id) for order in placed), reverse=True)

    @cases(BAD_PAGES)
    def test_refuses_a_page_of_nonsense(self, client, product_id, sent):
        answer = client.get(f"/orders?productId={product_id}&{sent}")

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


class TestTheCachedFirstPage:
    def test_spares_the_database_the_question(
        self, client, place, product_id, django_assert_num_queries
    ):
        placed = place(3)
        client.get(f"/orders?productId={product_id}")
        with django_assert_num_queries(0):
            assert ids(client.get(f"/orders?productId={product_id}")) == placed

    def test_is_the_answer_to_the_byte(self, client, place, product_id):
        place(3)
        answer = client.get(f"/orders?productId={product_id}")

        assert get_redis_connection("default").get(f"orders:{product_id}") == answer.content

    def test_is_dropped_by_a_new_order(self, client, place, product_id):
        [first] = place()
        client.get(f"/orders?productId={product_id}")
        [second] = place()

        assert ids(client.get(f"/orders?productId={product_id}")) == [second, first]

    def test_is_dropped_when_an_order_is_settled(self, client, place, product_id):
        [placed] = place()
        client.get(f"/orders?productId={product_id}")
        settle(reserved(Order.objects.get(id=placed)))

        assert client.get(f"/orders?productId={product_id}").json()[0]["status"] == "CONFIRMED"

    @pytest.mark.parametrize("garbage", [b"\xff\xfe", b"a b"])
    def test_is_rendered_anew_where_what_leads_on_is_garbage(
        self, client, place, product_id, garbage
    ):
        place(51)
        first = client.get(f"/orders?productId={product_id}")
        get_redis_connection("default").set(f"orders:{product_id}:next", garbage)
        again = client.get(f"/orders?productId={product_id}")

        assert (again.status_code, again.content) == (200, first.content)
        assert again["Link"] == first["Link"]

    def test_is_not_put_back_by_a_reader_that_stalls(self, client, place, product_id, monkeypatch):
        place()
        page_of = cache.OrderDetail.of
        stalled = iter([True])

        def stall(order: Order) -> object:
            detail = page_of(order)
            if next(stalled, False):
                # The reader has read its page; before it stores it, there is a new order.
                place()
            return detail

        monkeypatch.setattr("orders_project.orders.api.views.OrderDetail.of", stall)
        assert len(ids(client.get(f"/orders?productId={product_id}"))) == 1
        monkeypatch.undo()

        assert len(ids(client.get(f"/orders?productId={product_id}"))) == 2

    @pytest.mark.usefixtures("without_redis")
    def test_is_not_needed(self, client, place, product_id):
        placed = place(2)

        assert ids(client.get(f"/orders?productId={product_id}")) == placed


class TestGetOrder:
    def test_tells_a_stored_order(self, client, place, product_id):
        [placed] = place()
        answer = client.get(f"/orders/{placed}")

        assert answer.status_code == 200
        assert answer.json().items() >= {
            "id": placed, "productId": str(product_id), "quantity": 2, "totalPrice": 380_000,
        }.items()  # fmt: skip

    def test_tells_one_that_is_accepted_and_not_stored_yet(self, client, accepted_order):
        accepted = accepted_order()
        cache.keep_copies([accepted])

        answer = client.get(f"/orders/{accepted.id}")
        assert (answer.status_code, answer.json()["status"]) == (200, "PENDING")

    def test_prefers_what_is_stored(self, client, accepted_order):
        accepted = accepted_order()
        services.place_orders([accepted])
        Order.objects.update(status=Order.Status.REJECTED, settled_at=timezone.now())
        cache.keep_copies([accepted])

        assert client.get(f"/orders/{accepted.id}").json()["status"] == "REJECTED"

    @pytest.mark.parametrize("garbage", [b"", b"garbage", b"[]", b"\xff", b'{"id": 1}'])
    @pytest.mark.parametrize("path", ["", "/timeline", "?wait=1"])
    def test_takes_a_copy_that_cannot_be_read_for_none(self, client, garbage, path):
        order_id = uuid4()
        get_redis_connection("default").set(f"order:{order_id}", garbage, ex=60)

        answer = client.get(f"/orders/{order_id}{path}")

        assert (answer.status_code, answer.json()["code"]) == (404, "order_not_found")

    # Seconds since the id was made.
    @pytest.mark.parametrize("age", [-3, 0, 55])
    @pytest.mark.parametrize("path", ["", "/timeline", "?wait=1"])
    def test_does_not_deny_an_order_that_may_be_on_its_way(self, client, path, age):
        answer = client.get(f"/orders/{id_of_age(age)}{path}")

        assert (answer.status_code, answer.json()["code"]) == (503, "order_not_visible_yet")
        assert answer["Retry-After"] == "1"

    @pytest.mark.parametrize("age", [-60, 61, 3600, None])
    def test_tells_that_there_is_none_of_another_time(self, client, age):
        answer = client.get(f"/orders/{uuid4() if age is None else id_of_age(age)}")

        assert (answer.status_code, answer.json()["code"]) == (404, "order_not_found")
        assert answer["Content-Type"] == "application/problem+json"

    # Which server has kept everything, and for how many seconds.
    @pytest.mark.parametrize(
        ("known", "code"),
        [
            (None, "order_not_visible_yet"),
            ("{server} 55", "order_not_visible_yet"),
            ("another 3600", "order_not_visible_yet"),
            ("{server} \xb3", "order_not_visible_yet"),
            ("{server} 3600", "order_not_found"),
        ],
    )
    def test_does_not_deny_an_order_with_a_key_that_redis_may_have_forgotten(
        self, client, known, code
    ):
        redis = get_redis_connection("default")
        redis.delete("orders.since")
        if known is not None:
            server, age = known.format(server=redis.info("server")["run_id"]).split()
            since = str(int(time.time()) - int(age)) if age.isascii() else age
            redis.set("orders.since", f"{server} {since}", ex=3600)

        answers = [client.get(f"/orders/{order_id_of(str(new_id()))}") for _ in range(2)]

        assert {answer.json()["code"] for answer in answers} == {code}

    @pytest.mark.usefixtures("without_redis")
    def test_does_not_deny_an_order_that_may_be_where_it_cannot_look(self, client):
        answer = client.get(f"/orders/{new_id()}")

        assert (answer.status_code, answer.json()["code"]) == (503, "order_not_visible_yet")
        assert int(answer["Retry-After"]) > 0

    @pytest.mark.parametrize("path", ["/orders/1", "/orders/", "/orders/x", "/orders/%00"])
    def test_leads_nowhere_without_an_id(self, client, path):
        answer = client.get(path)

        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


class TestPages:
    @pytest.mark.parametrize("path", ["/", "/orders?productId={product}", "/orders/{order}"])
    def test_give_html_to_a_browser(self, client, place, product_id, path):
        [placed] = place()
        address = path.format(product=product_id, order=placed)
        answer = client.get(address, headers={"Accept": BROWSER})

        assert answer.status_code == 200
        assert answer["Content-Type"].startswith("text/html")
