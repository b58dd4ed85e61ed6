"""The OpenAPI document of the order service."""

from orders_project.orders.api.problems import TRANSLATIONS
from orders_project.orders.models import Order
from servicekit.http.cross_site import CrossSite
from servicekit.http.idempotency import MalformedIdempotencyKey
from servicekit.http.openapi import PROBLEMS_OF_THE_FRAMEWORK
from tests.servicekit.api_document import document, documented_codes, operations, wrong_examples


class TestTheDocument:
    def test_names_every_problem_that_there_is_and_no_other(self):
        ours = {each.code for each in TRANSLATIONS.values()}

        raised = {MalformedIdempotencyKey.default_code, CrossSite.default_code}
        assert documented_codes(document()) == ours | raised | PROBLEMS_OF_THE_FRAMEWORK

    def test_has_examples_that_are_valid(self):
        assert wrong_examples(document()) == []

    def test_describes_every_operation(self):
        for operation in operations(document()):
            assert operation["summary"]
            assert operation["tags"]
            assert operation.get("description") or "operation" in operation["tags"]

    def test_has_answers_as_they_are_on_the_wire(self):
        detail = document()["components"]["schemas"]["OrderDetail"]

        assert set(detail["required"]) == {
            "id",
            "productId",
            "quantity",
            "totalPrice",
            "status",
            "createdAt",
        }
        assert detail["properties"]["status"]["enum"] == Order.Status.values
        assert detail["properties"]["productId"]["format"] == "uuid"
