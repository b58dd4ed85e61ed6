"""The product service as its callers see it."""

import re
from datetime import datetime
from typing import Any

import msgspec
import pytest
from django.test import Client

from products_project.products import services
from products_project.products.models import Product
from servicekit.outbox.models import OutgoingEvent

pytestmark = pytest.mark.django_db

PROBLEM = "application/problem+json"


def send(client: Client, method: str, path: str, body: Any) -> Any:
    return client.generic(method, path, msgspec.json.encode(body), content_type="application/json")


def create(client: Client, **facts: Any) -> Any:
    return send(client, "POST", "/products", {"name": "Lamp", "price": 1, "qty": 1, **facts})


def next_page(answer: Any) -> str:
    [address] = re.fullmatch(r'<([^>]+)>; rel="next"', answer["Link"]).groups()
    return address


class TestPostProducts:
    def test_answers_with_the_product_and_says_where_it_is(self, client):
        answer = create(client, price=190_000, qty=100)
        body, found = answer.json(), client.get(answer["Location"])

        assert answer.status_code == 201
        assert (body["name"], body["price"], body["qty"]) == ("Lamp", 190_000, 100)
        assert set(body) == {"id", "name", "price", "qty", "createdAt"}
        assert answer["Location"] == f"http://testserver/products/{body['id']}"
        assert (found.json(), found["ETag"]) == (body, answer["ETag"])

    def test_speaks_json_in_utf_8(self, client):
        answer = create(client, name="Lámpara 🛋")

        assert answer["Content-Type"] == "application/json; charset=utf-8"
        assert msgspec.json.decode(answer.content)["name"] == "Lámpara 🛋"

    def test_names_a_time_in_utc_with_milliseconds(self, client):
        created_at = create(client).json()["createdAt"]

        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created_at)
        assert datetime.fromisoformat(created_at) == Product.objects.get().created_at

    @pytest.mark.parametrize(
        "body",
        [
            {"name": "L", "price": 1, "qty": 0},
            {"name": "x" * 255, "price": 2**53 - 1, "qty": 2**31 - 1},
            {"name": "'; DROP TABLE product; --"},
            {"name": "<script>alert(1)</script>"},
        ],
        ids=["least", "most", "SQL", "HTML"],
    )
    def test_takes_everything_that_is_valid_as_it_is(self, client, body):
        answer = create(client, **body)

        assert answer.status_code == 201
        assert client.get(answer["Location"]).json().items() >= body.items()

    def test_removes_white_space_around_a_name(self, client):
        assert create(client, name="  Lamp\n").json()["name"] == "Lamp"

    def test_ignores_how_the_content_type_is_written(self, client):
        body = b'{"name": "Lamp", "price": 1, "qty": 1}'
        answer = client.post("/products", body, content_type="Application/JSON; charset=UTF-8")

        assert answer.status_code == 201


class TestGetProduct:
    def test_takes_an_id_in_capitals(self, client, lamp):
        assert client.get(f"/products/{str(lamp.id).upper()}").json()["id"] == str(lamp.id)

    @pytest.mark.parametrize("tags", ['"1"', 'W/"1"', '"7", "1"', "*"])
    @pytest.mark.parametrize("is_cached", [True, False])
    def test_answers_304_to_who_has_it_already(self, client, lamp, tags, request, is_cached):
        if not is_cached:
            request.getfixturevalue("without_redis")
        answer = client.get(f"/products/{lamp.id}", headers={"If-None-Match": tags})

        assert (answer.status_code, answer.content, answer["ETag"]) == (304, b"", '"1"')

    def test_answers_anew_after_a_change(self, client, lamp):
        tag = client.get(f"/products/{lamp.id}")["ETag"]
        services.update_product(lamp.id, price=1)

        answer = client.get(f"/products/{lamp.id}", headers={"If-None-Match": tag})

        assert (answer.status_code, answer.json()["price"]) == (200, 1)
        assert answer["ETag"] != tag

    def test_answers_head_as_get_without_a_body(self, client, lamp):
        answer = client.head(f"/products/{lamp.id}")

        assert (answer.status_code, answer.content, answer["ETag"]) == (200, b"", '"1"')


class TestPatchProduct:
    def test_changes_what_is_given_and_can_be_read_at_once(self, client, lamp):
        client.get(f"/products/{lamp.id}")
        answer = send(client, "PATCH", f"/products/{lamp.id}", {"price": 180_000})

        assert answer.status_code == 200
        assert (answer.json()["name"], answer.json()["price"]) == ("Lamp", 180_000)
        assert answer["ETag"] == '"2"'
        assert client.get(f"/products/{lamp.id}").json() == answer.json()

    @pytest.mark.parametrize(
        "body", [{}, {"qty": 5}, {"price": 0}, {"price": None}, {"name": ""}, {"price": 1, "id": 2}]
    )
    def test_refuses_what_is_not_a_change(self, client, lamp, body):
        answer = send(client, "PATCH", f"/products/{lamp.id}", body)

        lamp.refresh_from_db()
        assert (answer.status_code, answer["Content-Type"]) == (400, PROBLEM)
        assert answer.json()["code"] == "invalid"
        assert lamp.version == 1
        assert not OutgoingEvent.objects.filter(routing_key="product.updated").exists()


class TestGetProducts:
    @pytest.fixture
    def shelf(self) -> list[str]:
        """Seven products' ids, newest first."""
        made = [services.create_product(name=f"Lamp {n}", price=1, qty=1) for n in range(7)]
        return [str(product.id) for product in made[::-1]]

    def test_lists_the_newest_first(self, client, shelf):
        answer = client.get("/products")

        assert [product["id"] for product in answer.json()] == shelf
        assert "Link" not in answer

    @pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 500])
    def test_leads_through_all_pages_without_repeating_or_skipping_any(self, client, shelf, limit):
        seen: list[str] = []
        address = f"/products?limit={limit}"
        while address:
            answer = client.get(address)
            assert len(answer.json()) <= limit
            seen += [product["id"] for product in answer.json()]
            address = next_page(answer) if "Link" in answer else ""

        assert seen == shelf

    def test_keeps_the_place_when_products_are_added_meanwhile(self, client, shelf):
        first = client.get("/products?limit=3")
        services.create_product(name="Latecomer", price=1, qty=1)
        second = client.get(next_page(first))

        assert [product["id"] for product in second.json()] == shelf[3:6]

    def test_finds_names_in_any_case(self, client, shelf):
        assert [each["id"] for each in client.get("/products?search=LAMP 3").json()] == [shelf[3]]

    @pytest.mark.parametrize("search", ["%25", "_", "%5C", "%27"])
    @pytest.mark.usefixtures("shelf")
    def test_searches_for_signs_literally(self, client, search):
        assert client.get(f"/products?search={search}").json() == []

    def test_keeps_the_search_on_the_next_page(self, client, shelf):
        services.create_product(name="Chair", price=1, qty=1)
        first = client.get("/products?search=lamp&limit=4")
        second = client.get(next_page(first))

        assert [product["id"] for product in first.json() + second.json()] == shelf


class TestAMachine:
    @pytest.mark.parametrize("path", ["/", "/products", "/products/{id}"])
    @pytest.mark.parametrize("accept", ["*/*", "application/json"])
    def test_is_given_json(self, client, lamp, path, accept):
        answer = client.get(path.format(id=lamp.id), headers={"Accept": accept})

        assert answer["Content-Type"].startswith("application/json")


class TestHealth:
    def test_tells_a_live_process_without_touching_anything(
        self, client, django_assert_num_queries
    ):
        with django_assert_num_queries(0):
            answer = client.get("/health/live")

        assert (answer.status_code, answer.json()) == (200, {"status": "live"})


class TestASmallMistake:
    def test_in_the_name_of_a_filter_is_not_overlooked(self, client, lamp):
        for path in ("/products?searhc=lamp", f"/products/{lamp.id}/stock-movements?reason=order"):
            answer = client.get(path)

            assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "unknown")

    def test_of_a_name_that_comes_twice_is_an_error(self, client):
        body = b'{"name": "Lamp", "price": 1, "qty": 1, "qty": 2}'
        answer = client.post("/products", body, content_type="application/json")

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
        assert "'qty' is there twice" in answer.json()["detail"]

    def test_that_changes_nothing_is_no_change(self, client, lamp):
        answer = send(client, "PATCH", f"/products/{lamp.id}", {"name": "Lamp"})

        assert (answer.status_code, answer["ETag"]) == (200, '"1"')
        assert not OutgoingEvent.objects.filter(routing_key="product.updated").exists()

    def test_in_the_address_of_the_admin_leads_there(self, client):
        assert client.get("/admin")["Location"] == "/admin/"
