"""The pages of the product service: its API, as a browser sees it."""

import re
from typing import Any

import pytest
from django.test import Client

from products_project.products import services
from products_project.products.models import Product
from servicekit.identifiers import new_id

pytestmark = pytest.mark.django_db

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def page(client: Client, path: str, **options: Any) -> Any:
    return client.get(path, headers=BROWSER, **options)


def post(client: Client, body: Any = None, **headers: str) -> Any:
    return client.post(
        "/products", body or {"name": "Lamp", "price": 5, "qty": 5},
        content_type="application/json", headers={**BROWSER, **headers},
    )  # fmt: skip


def buttons(answer: Any) -> set[str]:
    """Return the methods that DRF's page has buttons for."""
    return set(re.findall(r'title="Make an? (\w+) request', answer.content.decode()))


class TestTheRoot:
    def test_leads_to_everything(self, client):
        shown = page(client, "/").content.decode()

        for path in ("/products", "/docs", "/schema", "/admin/", "/health/ready", "/metrics"):
            assert f'href="http://testserver{path}"' in shown

    def test_leads_nowhere_in_vain(self, client):
        root = client.get("/").json()
        assert root["products"] == "http://testserver/products"
        for address in root.values():
            assert client.get(address, follow=True).status_code == 200


class TestAPage:
    def test_has_a_button_for_what_can_be_done_there(self, client, lamp):
        assert buttons(page(client, "/products")) == {"GET", "OPTIONS", "POST"}
        one = page(client, f"/products/{lamp.id}")
        assert buttons(one) == {"GET", "OPTIONS", "DELETE", "PATCH"}

    def test_is_there_for_what_can_only_be_done(self, client, lamp):
        answer = client.put(f"/products/{lamp.id}/stock-movements", headers=BROWSER)

        assert answer.status_code == 405
        assert b"Allow" in answer.content
        assert "POST" in buttons(answer)

    def test_leads_to_the_pages_below_it(self, client, lamp):
        shown = page(client, f"/products/{lamp.id}").content.decode()

        assert f'href="http://testserver/products/{lamp.id}/stock-movements"' in shown

    def test_leads_to_the_next_page(self, client, lamp):
        services.create_product(name="Chair", price=1, qty=1)

        first = page(client, "/products?limit=1").content.decode()
        [following] = set(re.findall(r'href="([^"]+cursor=[^"]+)"', first))
        second = page(client, following.replace("&amp;", "&")).content.decode()

        assert str(lamp.id) in second
        assert str(lamp.id) not in first

    def test_fills_in_the_names_of_the_fields(self, client):
        shown = page(client, "/products").content.decode()

        assert all(f"&quot;{name}&quot;:" in shown for name in ("name", "price", "qty"))

    def test_says_its_docstring(self, client):
        assert b"Products, with their price and their stock." in page(client, "/products").content

    @pytest.mark.parametrize("known", [{}, {"If-None-Match": '"1"'}])
    def test_is_not_taken_for_the_json_nor_the_json_for_it(self, client, lamp, known):
        # The browser would come back with the tag of the one and be shown the other, or an old one.
        shown = client.get(f"/products/{lamp.id}", headers={**BROWSER, **known})
        told = client.get(f"/products/{lamp.id}", headers=known)

        assert (shown.status_code, told.status_code) == (200, 304 if known else 200)
        assert shown["Content-Type"].startswith("text/html")
        assert "ETag" not in shown
        assert "Accept" in told["Vary"]

    def test_shows_what_a_stranger_wrote_as_text(self, client):
        product = services.create_product(name='</pre><script>alert("1")</script>', price=1, qty=1)

        for path in ("/products", f"/products/{product.id}", "/products?search=</script><script>"):
            shown = page(client, path).content.decode()
            assert "<script>" not in shown
            assert "</pre><script" not in shown

    def test_answers_what_was_sent_from_it(self, client):
        answer = post(client)

        assert answer.status_code == 201
        assert answer["Content-Type"].startswith("text/html")
        assert Product.objects.get().name == "Lamp"

    def test_is_there_for_an_answer_without_a_body(self, client, lamp):
        answer = client.delete(f"/products/{lamp.id}", headers=BROWSER)

        # A browser shows nothing at all for a real 204.
        assert answer.status_code == 200
        assert b"204 No Content" in answer.content

    def test_costs_a_program_nothing(self, client, lamp, django_assert_num_queries):
        client.get(f"/products/{lamp.id}")

        with django_assert_num_queries(0):
            answer = client.get(f"/products/{lamp.id}", headers={"Accept": "application/json"})

        assert answer["Content-Type"] == "application/json; charset=utf-8"


class TestAFormOfABrowserWithASession:
    @pytest.fixture
    def client(self, admin_user) -> Client:
        client = Client(enforce_csrf_checks=True)
        client.force_login(admin_user)
        return client

    def send(self, client: Client, token: str) -> Any:
        return post(client, X_CSRFToken=token)

    def test_gets_nothing_by_the_session_and_needs_no_token(self, client):
        # The API knows no accounts: what a stranger's page could do with this browser's cookies,
        # it can do without them.
        assert self.send(client, "").status_code == 201

    def test_is_taken_with_the_token_of_its_page(self, client):
        [token] = re.findall(r'"csrfToken": "(\w+)"', page(client, "/products").content.decode())

        assert self.send(client, token).status_code == 201

    def test_of_the_admin_is_refused_without_its_token(self, client):
        fields = {"name": "Lamp", "price": "5", "qty": "5"}
        answer = client.post("/admin/products/product/add/", fields, headers=BROWSER)

        assert answer.status_code == 403
        assert not Product.objects.exists()


class TestAProblem:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/nowhere", 404),
            ("GET", "/products/not-a-uuid", 404),
            ("GET", f"/products/{new_id()}", 404),
            ("GET", "/products?limit=0", 400),
            ("POST", "/products", 415),
            ("PUT", "/products", 405),
        ],
    )
    def test_is_a_page_of_ours(self, client, method, path, status):
        answer = client.generic(method, path, b"x", content_type="text/plain", headers=BROWSER)

        assert answer.status_code == status
        assert answer["Content-Type"] == "text/html; charset=utf-8"
        assert f"{status} ".encode() in answer.content
        assert b"Product-Service" in answer.content

    def test_of_ours_is_a_page_of_ours_too(self, client, monkeypatch):
        def bug(**_page: object) -> None:
            raise RuntimeError("secret")

        monkeypatch.setattr("products_project.products.selectors.sold_products", bug)

        answer = page(client, "/products")

        assert answer.status_code == 500
        assert b"Something went wrong on our side." in answer.content
        assert b"secret" not in answer.content

    def test_names_the_fields_that_are_wrong(self, client):
        answer = post(client, {"name": ""})

        fields = set(re.findall(r"&quot;field&quot;: &quot;(\w+)&quot;", answer.content.decode()))
        assert fields == {"name", "price", "qty"}

    @pytest.mark.parametrize("path", ["/products", "/", "/schema"])
    def test_of_an_unknown_format_is_no_html(self, client, path):
        answer = client.get(f"{path}?format=xml")

        assert (answer.status_code, answer["Content-Type"]) == (406, "application/problem+json")
