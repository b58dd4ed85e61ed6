"""What the product service makes of bad input: a problem, a stable code, and no trace."""

from typing import Any

import pytest
from django.test import Client

from products_project.products import cache
from products_project.products.models import Product
from servicekit.identifiers import new_id
from servicekit.outbox.models import OutgoingEvent
from tests.servicekit.bad_input import BAD_PAGES, MALFORMED, NOT_AN_INTEGER, NOT_AN_OBJECT, cases

pytestmark = pytest.mark.django_db

MACHINE = {"Accept": "application/json"}


def post(client: Client, body: bytes, content_type: str = "application/json") -> Any:
    return client.generic("POST", "/products", body, content_type=content_type, headers=MACHINE)


def assert_problem(answer: Any, status: int, *codes: str) -> None:
    assert answer.status_code == status, answer.content[:300]
    assert answer["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["code"] in codes
    assert document["status"] == status
    assert {"type", "title", "detail"} <= set(document)
    assert not Product.objects.exists()
    assert not OutgoingEvent.objects.exists()


class TestPostProducts:
    @cases(NOT_AN_OBJECT)
    def test_refuses_what_is_not_an_object(self, client, sent):
        assert_problem(post(client, sent), 400, "invalid", "malformed_body")

    @cases(MALFORMED)
    def test_refuses_what_is_malformed(self, client, sent):
        assert_problem(post(client, sent), 400, "malformed_body")

    @pytest.mark.parametrize("field", ["price", "qty"])
    @cases(NOT_AN_INTEGER)
    def test_refuses_what_is_no_integer_where_one_belongs(self, client, field, sent):
        values = {"name": b'"Lamp"', "price": b"1", "qty": b"1", field: sent}
        body = b",".join(
            b'"%s":%s' % (name.encode(), value)
            for name, value in values.items()
            if value is not None
        )

        assert_problem(post(client, b"{%s}" % body), 400, "invalid", "malformed_body")

    @pytest.mark.parametrize(
        ("field", "value"),
        [("price", 0), ("price", -1), ("price", 2**53), ("qty", -1), ("qty", 2**31)],
    )
    def test_refuses_numbers_out_of_range_and_names_the_field(self, client, field, value):
        body = {"name": "Lamp", "price": 1, "qty": 1, field: value}
        answer = client.post("/products", body, content_type="application/json", headers=MACHINE)

        assert_problem(answer, 400, "invalid")
        assert [error["field"] for error in answer.json()["errors"]] == [field]

    @cases({
        "empty": b'""', "blank": b'"  "', "null": b"null", "a number": b"5", "true": b"true",
        "a list": b"[]", "an object": b"{}", "NUL": rb'"a\u0000b"', "long": b'"%b"' % (b"x" * 256),
    })  # fmt: skip
    def test_refuses_what_is_no_name(self, client, sent):
        answer = post(client, b'{"name":%s,"price":1,"qty":1}' % sent)

        assert_problem(answer, 400, "invalid")
        assert [error["field"] for error in answer.json()["errors"]] == ["name"]

    def test_refuses_a_field_that_nobody_asked_for_and_names_it(self, client):
        answer = post(client, b'{"name":"Lamp","price":1,"qty":1,"quantity":1}')

        assert_problem(answer, 400, "invalid")
        assert answer.json()["errors"] == [
            {"field": "quantity", "code": "unknown", "message": "Unknown field."}
        ]

    def test_names_every_field_that_is_wrong(self, client):
        answer = post(client, b'{"name":"","price":"1"}')

        assert_problem(answer, 400, "invalid")
        assert {error["field"] for error in answer.json()["errors"]} == {"name", "price", "qty"}

    def test_takes_a_body_of_exactly_64_kib_and_refuses_one_over(self, client):
        body = b'{"name":"Lamp","price":1,"qty":1}'
        for excess in (1, 1_000_000):
            assert_problem(post(client, body.ljust(64 * 1024 + excess)), 413, "body_too_large")

        assert post(client, body.ljust(64 * 1024)).status_code == 201

    @pytest.mark.parametrize(
        "content_type",
        # The first three are all that another site's page has a browser send without asking here.
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
         "application/xml", "application/octet-stream", "application/x-python-pickle", "nonsense"],
    )  # fmt: skip
    def test_refuses_what_is_not_json(self, client, content_type):
        answer = post(client, b'{"name":"Lamp","price":1,"qty":1}', content_type)

        assert_problem(answer, 415, "unsupported_media_type")


CHANGES = {"PATCH /products/{id}": "price", "POST /products/{id}/stock-movements": "delta"}


class TestChangesOfAProduct:
    @staticmethod
    def assert_refused(client: Client, lamp: Product, change: str, body: bytes) -> None:
        OutgoingEvent.objects.all().delete()
        method, path = change.format(id=lamp.id).split()
        answer = client.generic(method, path, body, "application/json", headers=MACHINE)

        assert answer.status_code == 400, answer.content[:300]
        assert answer.json()["code"] in ("invalid", "malformed_body")
        assert (Product.objects.get().version, cache.get(lamp.id).version) == (1, 1)
        assert lamp.movements.count() == 1
        assert not OutgoingEvent.objects.exists()

    @pytest.mark.parametrize("change", CHANGES)
    def test_refuses_to_guess_what_an_empty_body_means(self, client, change):
        method, path = change.format(id=new_id()).split()
        answer = client.generic(method, path, b"", CONTENT_TYPE="application/json", headers=MACHINE)

        assert_problem(answer, 400, "malformed_body")

    @pytest.mark.parametrize("change", CHANGES)
    @cases({**NOT_AN_OBJECT, **MALFORMED})
    def test_are_refused_with_what_is_no_object(self, client, lamp, change, sent):
        self.assert_refused(client, lamp, change, sent)

    @pytest.mark.parametrize("change", CHANGES)
    @cases({**NOT_AN_INTEGER, "zero": b"0", "2 to the 53rd": str(2**53).encode()})
    def test_are_refused_with_what_is_no_integer(self, client, lamp, change, sent):
        field = b"" if sent is None else b'"%s":%s' % (CHANGES[change].encode(), sent)
        reason = b',"reason":"correction"' if field and "POST" in change else b""

        self.assert_refused(client, lamp, change, b"{%s%s}" % (field, reason))


class TestGetProducts:
    @cases({**BAD_PAGES, "a search for NUL": "search=%00"})
    def test_refuses_a_page_of_nonsense(self, client, sent):
        assert_problem(client.get(f"/products?{sent}", headers=MACHINE), 400, "invalid")

    def test_finds_nothing_for_what_is_not_even_utf_8(self, client):
        assert client.get("/products?search=%ED%A0%80%FF", headers=MACHINE).json() == []


class TestAnyRoute:
    @pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE"])
    def test_that_leads_nowhere_is_404_by_any_method(self, client, method):
        answer = client.generic(method, "/nowhere", b"{}", "application/json", headers=MACHINE)

        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")

    @pytest.mark.parametrize(
        "path",
        ["nowhere", "products/", "products/1", "products/not-a-uuid", "products/0198c0de",
         "products/0198c0de00007000800000000000000a", "products/%00", "products/%FF",
         "products/0198-c0de0000-7000-8000-00000000000a",
         "products/%7B0198c0de-0000-7000-8000-00000000000a%7D",
         "products/0198c0de-0000-7000-8000-00000000000a%0A", "products/..%2f..%2fetc%2fpasswd"],
    )  # fmt: skip
    def test_that_leads_nowhere_is_404(self, client, path):
        assert_problem(client.get(f"/{path}", headers=MACHINE), 404, "not_found")

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            *((each, "/products", "POST") for each in ("PUT", "DELETE", "TRACE", "BREW")),
            *((each, f"/products/{new_id()}", "PATCH") for each in ("PUT", "POST")),
        ],
    )
    def test_says_which_methods_it_has(self, client, method, path, allowed):
        answer = client.generic(method, path, b"{}", "application/json", headers=MACHINE)

        assert_problem(answer, 405, "method_not_allowed")
        assert set(answer["Allow"].split(", ")) >= {"GET", "HEAD", "OPTIONS", allowed}

    def test_says_that_it_has_no_other_format(self, client):
        answer = client.get("/products", headers={"Accept": "application/xml"})

        assert_problem(answer, 406, "not_acceptable")

    def test_refuses_a_host_that_is_not_ours(self, client):
        answer = client.get("/products", headers={"Host": "evil.example", **MACHINE})

        assert_problem(answer, 400, "bad_request")

    def test_answers_an_error_of_ours_without_its_traceback(self, client, monkeypatch):
        def bug(**_page: object) -> None:
            raise RuntimeError("secret")

        monkeypatch.setattr("products_project.products.selectors.sold_products", bug)
        answer = client.get("/products", headers=MACHINE)

        assert_problem(answer, 500, "internal_error")
        assert b"secret" not in answer.content
