"""The admin, and orders as stored, cost the same with five million orders as with five."""

from collections.abc import Iterator

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from orders_project.orders.models import Order
from orders_project.orders.selectors import StoragePosition
from servicekit.backoffice.spreadsheets import in_chunks
from servicekit.database import figures
from servicekit.http.pagination import cursor_after
from tests.servicekit.query_plans import assert_frugal, rows_read, scans_of

pytestmark = pytest.mark.django_db

ROWS = 200_000


@pytest.fixture(scope="module")
def many_orders(django_db_setup, django_db_blocker) -> Iterator[str]:  # noqa: ARG001 - pytest-django's
    """Fill the table for the tests of this module, and return one of its product ids."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        # In parts, for each of which a busy machine has time.
        for first in range(1, ROWS, ROWS // 20):
            cursor.execute(
                """
                INSERT INTO "order" (id, product_id, quantity, total_price, status, reason,
                                     created_at, stored_at, settled_at, recheck_at)
                SELECT gen_random_uuid(), lpad((n %% 500)::text, 32, '0')::uuid, 1, 100,
                       -- Hardly any is PENDING, and those are old ones: the worst case for a
                       -- search that hopes to find some soon.
                       CASE WHEN n < 20 THEN 'PENDING' WHEN n %% 50 = 0 THEN 'REJECTED'
                            ELSE 'CONFIRMED' END,
                       '', now() - (%s - n) * interval '10 milliseconds', now(), now(), now()
                FROM generate_series(%s, %s) AS n
                """,
                [ROWS, first, first + ROWS // 20 - 1],
            )
        cursor.execute('ANALYZE "order"')
        yield "00000000-0000-0000-0000-000000000007"
        cursor.execute('TRUNCATE "order", order_figures; ANALYZE "order"')


class TestNoPageReadsTheWholeTable:
    @pytest.mark.parametrize(
        ("page", "query"),
        [
            ("index", ""),
            ("orders_order_changelist", ""),
            ("orders_order_changelist", "?p=150"),
            ("orders_order_changelist", "?status__exact=PENDING"),
            ("orders_order_changelist", "?status__exact=CONFIRMED"),
            ("orders_order_changelist", "?status__exact=CANCELLED"),
            ("orders_order_changelist", "?q={product}"),
            ("orders_order_changelist", "?q={product}&status__exact=REJECTED"),
            ("orders_order_changelist", "?q=00000000-0000-4000-8000-000000000000"),
            ("orders_order_changelist", "?created_at_from_0=2020-01-01&created_at_to_0=2020-01-02"),
            ("orders_order_changelist", "?status__exact=PENDING&created_at_from_0=2020-01-01"),
            ("orders_order_changelist", "?_facets=True"),
            ("orders_order_changelist", "?o=7&p=150"),
            ("orders_order_changelist", "?o=7&status__exact=PENDING"),
            ("orders_order_changelist", "?o=4"),
            ("orders_order_changelist", "?created_at_last=month"),
        ],
    )
    def test_of_orders(self, admin_client, many_orders, page, query):
        address = reverse(f"admin:{page}") + query.format(product=many_orders)
        with CaptureQueriesContext(connection) as captured:
            answer = admin_client.get(address)

        assert answer.status_code == 200
        assert_frugal(scans_of("order", captured.captured_queries))

    @pytest.mark.parametrize("query", ["", "?o=7", "?status__exact=CONFIRMED", "?q={product}"])
    def test_of_orders_in_an_export(self, rf, admin_user, many_orders, monkeypatch, query):
        # The test is a transaction, whose connection has to stay.
        monkeypatch.setattr(connection, "close_if_unusable_or_obsolete", lambda: None)
        request = rf.get("/" + query.format(product=many_orders))
        request.user = admin_user
        chunks = in_chunks(admin.site.get_model_admin(Order).get_export_queryset(request))
        with CaptureQueriesContext(connection) as captured:
            read = [order for _, chunk in zip(range(3), chunks, strict=False) for order in chunk]

        assert len({order.id for order in read}) == 300
        scans = scans_of("order", captured.captured_queries)
        assert_frugal(scans)
        assert max(map(rows_read, scans)) < 500

    def test_of_orders_as_they_are_stored(self, client, many_orders):  # noqa: ARG002 - many
        deep = Order.objects.order_by("stored_number")[ROWS // 2]
        cursor = cursor_after(StoragePosition.of(deep))
        with CaptureQueriesContext(connection) as captured:
            answer = client.get(f"/orders?sort=stored&limit=20&cursor={cursor}")

        assert len(answer.json()) == 20
        for scan in scans_of("order", captured.captured_queries):
            assert scan["Node Type"] in {"Index Scan", "Index Only Scan"}, scan["sql"]
            assert rows_read(scan) <= 20, scan["sql"]

    def test_and_the_plan_of_one_that_would_is_noticed(self, many_orders):  # noqa: ARG002 - many
        # Proves that the test above can fail.
        scans = scans_of("order", [{"sql": 'SELECT count(*) FROM "order" WHERE quantity > 0'}])

        with pytest.raises(AssertionError, match="quantity > 0"):
            assert_frugal(scans)

    @pytest.mark.parametrize("shown", figures.RANGES)
    def test_and_the_start_page_counts_them_all(self, admin_client, many_orders, shown):  # noqa: ARG002 - many
        start = admin_client.get(reverse("admin:index") + f"?range={shown}")

        assert start.context["tiles"][0].value == f"{ROWS:,}"

    @pytest.mark.parametrize(("page", "rows"), [(200, 50), (201, 0), (99_999_999, 0)])
    def test_lists_say_where_they_end(self, admin_client, many_orders, page, rows):  # noqa: ARG002 - many
        answer = admin_client.get(reverse("admin:orders_order_changelist"), {"p": page})

        assert len(answer.context["cl"].result_list) == rows
        assert (b"Lists end at row 10,000" in answer.content) == (not rows)
