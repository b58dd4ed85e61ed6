"""The admin costs the same with millions of movements, or of failures, as with five."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.servicekit.query_plans import assert_frugal, scans_of

pytestmark = pytest.mark.django_db

LONG_AGO = "?created_at_from_0=2020-01-01&created_at_to_0=2020-01-02"
GROUP = "queue=product_order_queue&kind=…&routing_key=order.created"
LETTERS = "dead_letters_deadletter_changelist"
MOVEMENTS, RESERVATIONS = "products_stockmovement_changelist", "products_reservation_changelist"


@pytest.fixture(scope="module")
def many_movements(django_db_setup, django_db_blocker) -> Iterator[None]:  # noqa: ARG001 - pytest-django's
    """Fill both ledgers for the tests of this module."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO product (id, name, price, qty, version, created_at)
            SELECT lpad(n::text, 32, '0')::uuid, 'Lamp ' || n, 100, mod(n, 20), 1, now()
            FROM generate_series(0, 499) AS n
            """
        )
        cursor.execute(
            """
            INSERT INTO stock_movement
                (product_id, delta, qty_after, reason, order_id, idempotency_key, created_at)
            SELECT lpad((n % 500)::text, 32, '0')::uuid, -1, 0, 'order', 'order ' || n, '',
                   now() - (200000 - n) * interval '10 milliseconds'
            FROM generate_series(1, 200000) AS n
            """
        )
        cursor.execute(
            """
            INSERT INTO reservation
                (order_id, product_id, quantity, outcome, reason, stock_before, created_at)
            SELECT 'order ' || n, lpad((n % 500)::text, 32, '0')::uuid, 1,
                   CASE WHEN n < 20 THEN 'REJECTED' ELSE 'RESERVED' END,
                   CASE WHEN n < 20 THEN 'insufficient_stock' ELSE '' END, 1,
                   now() - (200000 - n) * interval '10 milliseconds'
            FROM generate_series(1, 200000) AS n
            """
        )
        cursor.execute(
            """
            INSERT INTO dead_letter (
                queue, routing_key, reason, body, headers, properties, message_id, correlation_id,
                fingerprint, times_seen, status, last_seen)
            SELECT 'product_order_queue', 'order.created', repeat('late ', n % 3) || n, '{}', '{}',
                   '{}', n::text, '', sha256(n::text::bytea), 1, 'WAITING',
                   now() - n * interval '1 second'
            FROM generate_series(1, 100000) AS n
            """
        )
        cursor.execute("ANALYZE product, stock_movement, reservation, dead_letter")
        yield
        cursor.execute(
            "TRUNCATE product, product_price, stock_movement, reservation, refused_orders,"
            " dead_letter, dead_letter_event"
        )
        cursor.execute("ANALYZE product, stock_movement, reservation, dead_letter")


class TestNoPageReadsAWholeLedger:
    @pytest.mark.parametrize(
        ("page", "query", "table"),
        [
            ("index", "", "stock_movement"),
            (MOVEMENTS, "", "stock_movement"),
            (MOVEMENTS, "?q=order+77", "stock_movement"),
            (MOVEMENTS, f"?product__id__exact={UUID(int=7)}", "stock_movement"),
            (MOVEMENTS, "?reason__exact=correction", "stock_movement"),
            (MOVEMENTS, "?o=0", "stock_movement"),
            (MOVEMENTS, "?o=4", "stock_movement"),
            (MOVEMENTS, "?o=0&reason__exact=correction", "stock_movement"),
            (RESERVATIONS, "", "reservation"),
            (RESERVATIONS, "?o=0&p=150", "reservation"),
            (RESERVATIONS, "?o=0&outcome__exact=REJECTED", "reservation"),
            (RESERVATIONS, "?outcome__exact=REJECTED", "reservation"),
            (RESERVATIONS, "?q=order+77", "reservation"),
            (RESERVATIONS, LONG_AGO, "reservation"),
            (LETTERS, "", "dead_letter"),
            (LETTERS, "?" + GROUP, "dead_letter"),
            (LETTERS, "reasons/", "dead_letter"),
            (LETTERS, f"reasons/replay/?{GROUP}&up_to=9999999999", "dead_letter"),
        ],
    )
    @pytest.mark.usefixtures("many_movements")
    def test_of_stock(self, admin_client, page, query, table):
        with CaptureQueriesContext(connection) as captured:
            answer = admin_client.get(reverse(f"admin:{page}") + query)

        assert answer.status_code == 200
        assert_frugal(scans_of(table, captured.captured_queries))

    @pytest.mark.usefixtures("many_movements")
    def test_and_the_start_page_says_what_it_has_looked_at(self, admin_client):
        answer = admin_client.get(reverse("admin:index"))

        taken, best, low, *_others = answer.context["cards"]
        assert "Counted up to" in taken.note
        assert len(best.bars) == len(low.bars) == 5
