"""The OpenAPI document of the product service."""

import pytest
from django.test import Client

from products_project.products.api.problems import TRANSLATIONS
from servicekit.http.cross_site import CrossSite
from servicekit.http.idempotency import MalformedIdempotencyKey
from servicekit.http.openapi import PROBLEMS_OF_THE_FRAMEWORK
from tests.servicekit.api_document import TrueDocument, document


class TestTheDocument(TrueDocument):
    codes = (
        {each.code for each in TRANSLATIONS.values()}
        | PROBLEMS_OF_THE_FRAMEWORK
        | {MalformedIdempotencyKey.default_code, CrossSite.default_code}
    )

    def test_takes_no_other_fields_than_it_names(self):
        schemas = document()["components"]["schemas"]

        for name in ("NewProduct", "ProductChanges", "NewStockMovement"):
            assert schemas[name]["additionalProperties"] is False

    def test_has_the_bounds_of_the_fields(self):
        properties = document()["components"]["schemas"]["NewProduct"]["properties"]

        assert (properties["price"]["minimum"], properties["price"]["maximum"]) == (1, 2**53 - 1)
        assert (properties["qty"]["minimum"], properties["qty"]["maximum"]) == (0, 2**31 - 1)
        assert properties["name"]["maxLength"] == 255

    def test_has_answers_as_they_are_on_the_wire(self):
        detail = document()["components"]["schemas"]["ProductDetail"]

        assert set(detail["required"]) == {"id", "name", "price", "qty", "createdAt"}
        assert detail["properties"]["id"]["format"] == "uuid"
        assert detail["properties"]["createdAt"]["format"] == "date-time"


class TestSchema:
    @pytest.mark.parametrize(
        ("asked", "accept", "content_type"),
        [
            ("/schema", "*/*", "application/json"),
            ("/schema", "application/yaml", "application/yaml"),
            ("/schema?format=yaml", "*/*", "application/yaml"),
            ("/schema?format=json", "text/html,*/*;q=0.8", "application/json"),
        ],
    )
    def test_is_json_or_yaml(self, client, asked, accept, content_type):
        answer = client.get(asked, headers={"Accept": accept})

        assert answer.status_code == 200
        assert answer["Content-Type"].startswith(content_type)

    def test_is_nothing_else(self, client):
        answer = client.get("/schema?format=xml")

        assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")

    @pytest.mark.django_db
    def test_is_shown_by_swagger_ui_from_our_own_files(self, client):
        page = client.get("/docs").content.decode()

        assert "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js" in page
        assert "https://" not in page


class TestWhatIsRead:
    @pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
    def test_is_not_written_to(self, path):
        answer = Client(enforce_csrf_checks=True).post(path)

        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
        assert answer["Allow"] == "GET, HEAD"
