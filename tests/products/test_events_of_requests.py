"""What a request has recorded goes on under the request's ids."""

import pytest

from products_project.products import services
from servicekit.outbox.models import OutgoingEvent

TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADER = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.mark.django_db(transaction=True)
class TestEventsOfARequest:
    def test_are_recorded_under_its_ids(self, client):
        answer = client.post(
            "/products", {"name": "Lamp", "price": 1, "qty": 1},
            content_type="application/json",
            headers={"X-Request-ID": "me-1", "traceparent": HEADER},
        )  # fmt: skip

        assert (answer.status_code, answer["X-Request-ID"]) == (201, "me-1")
        [event] = OutgoingEvent.objects.all()
        assert event.headers["request_id"] == "me-1"
        assert event.headers["traceparent"] == HEADER

    def test_without_a_request_have_none(self):
        services.create_product(name="Lamp", price=1, qty=1)

        assert OutgoingEvent.objects.get().headers == {}

    def test_are_answered_with_an_id_even_by_nobody(self, client):
        answer = client.get("/nowhere", headers={"X-Request-ID": "me-2"})

        assert (answer.status_code, answer["X-Request-ID"]) == (404, "me-2")
