"""The OpenAPI document of the order service."""

from orders_project.orders.api.problems import TRANSLATIONS
from orders_project.orders.models import Order
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

    def test_has_answers_as_they_are_on_the_wire(self):
        detail = document()["components"]["schemas"]["OrderDetail"]

        fields = {"id", "productId", "quantity", "totalPrice", "status", "createdAt"}
        assert set(detail["required"]) == fields
        assert detail["properties"]["status"]["enum"] == Order.Status.values
        assert detail["properties"]["productId"]["format"] == "uuid"
