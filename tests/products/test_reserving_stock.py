"""Which orders get their stock."""

from collections import Counter
from uuid import UUID

import msgspec
import pytest
from django.db import DatabaseError, IntegrityError, connection
from django.db.models import Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from products_project.products import cache, reservations, services
from products_project.products.models import Product, Reservation, StockMovement
from servicekit.contracts.events import OrderCreated
from servicekit.identifiers import new_id
from servicekit.outbox.models import OutgoingEvent

pytestmark = pytest.mark.django_db


def an_order(product: Product | UUID, quantity: int = 1, order_id: int | str = "") -> OrderCreated:
    product_id = product.id if isinstance(product, Product) else product
    return OrderCreated(
        order_id=order_id or str(new_id()), product_id=product_id, quantity=quantity
    )


def told() -> list[tuple[str, object, int]]:
    """What the events say, in the order they were recorded: key, order id, stock left."""
    rows = OutgoingEvent.objects.filter(routing_key__startswith="stock.").order_by("id")
    bodies = [(row.routing_key, msgspec.json.decode(row.body)) for row in rows]
    return [(key, body["orderId"], body["remaining"]) for key, body in bodies]


def explained_stock(product: Product) -> int:
    return product.movements.aggregate(total=Sum("delta"))["total"] or 0


class TestReserveStock:
    def test_takes_the_units_of_an_order(self, lamp):
        reservations.reserve_stock([an_order(lamp, 3)])

        lamp.refresh_from_db()
        assert (lamp.qty, lamp.version) == (7, 2)

    def test_explains_what_it_took(self, lamp):
        order = an_order(lamp, 3)
        reservations.reserve_stock([order])

        movement = lamp.movements.get(reason=StockMovement.Reason.ORDER)
        assert (movement.delta, movement.order_id) == (-3, order.order_id)
        assert explained_stock(lamp) == 7

    def test_tells_the_outcome_and_what_is_left(self, lamp):
        order = an_order(lamp, 3)
        reservations.reserve_stock([order])

        assert told() == [("stock.reserved", order.order_id, 7)]

    def test_gives_an_order_all_or_nothing(self, lamp):
        order = an_order(lamp, 11)
        reservations.reserve_stock([order])

        lamp.refresh_from_db()
        assert lamp.qty == 10
        assert told() == [("stock.rejected", order.order_id, 10)]
        assert Reservation.objects.get().reason == "insufficient_stock"

    def test_gives_the_last_unit(self, lamp):
        reservations.reserve_stock([an_order(lamp, 10)])

        lamp.refresh_from_db()
        assert lamp.qty == 0

    def test_decides_in_the_order_of_arrival(self, lamp):
        first, too_much, last = an_order(lamp, 6), an_order(lamp, 5), an_order(lamp, 4)
        reservations.reserve_stock([first, too_much, last])

        assert [(key, order_id) for key, order_id, _ in told()] == [
            ("stock.reserved", first.order_id),
            ("stock.rejected", too_much.order_id),
            ("stock.reserved", last.order_id),
        ]

    def test_rejects_an_unknown_product(self, lamp):  # noqa: ARG002 - not this one
        order = an_order(new_id())

        assert reservations.reserve_stock([order]) == []
        assert told() == [("stock.rejected", order.order_id, 0)]
        assert Reservation.objects.get().reason == "product_not_found"

    def test_does_not_let_an_unknown_product_hold_up_the_others(self, lamp):
        reservations.reserve_stock([an_order(new_id()), an_order(lamp, 3)])

        lamp.refresh_from_db()
        assert lamp.qty == 7

    def test_tells_a_duplicate_in_the_same_batch_again_and_takes_its_units_once(self, lamp):
        order = an_order(lamp, 3)
        reservations.reserve_stock([order, order])

        lamp.refresh_from_db()
        assert lamp.qty == 7
        assert told() == [("stock.reserved", order.order_id, 7)] * 2

    def test_tells_a_duplicate_in_a_later_batch_again_and_takes_its_units_once(self, lamp):
        order = an_order(lamp, 3)
        reservations.reserve_stock([order])
        reservations.reserve_stock([order])

        lamp.refresh_from_db()
        assert (lamp.qty, lamp.version) == (7, 2)
        assert told() == [("stock.reserved", order.order_id, 7)] * 2

    def test_tells_the_same_fact_under_the_same_event_id(self, lamp):
        order = an_order(lamp, 3)
        reservations.reserve_stock([order])
        reservations.reserve_stock([order])

        told_rows = OutgoingEvent.objects.filter(routing_key="stock.reserved")
        assert len({row.event_id for row in told_rows}) == 1

    def test_keeps_a_rejection_when_there_is_stock_again(self, lamp):
        order = an_order(lamp, 11)
        reservations.reserve_stock([order])
        Product.objects.filter(id=lamp.id).update(qty=100)
        reservations.reserve_stock([order])

        assert [key for key, _, _ in told()] == ["stock.rejected"] * 2

    @pytest.mark.parametrize("is_same_batch", [True, False], ids=["at once", "later"])
    def test_returns_an_order_that_contradicts_its_own_decision(self, lamp, is_same_batch):
        order = an_order(lamp, 3)
        liar = an_order(lamp, 4, order_id=order.order_id)
        batches = [[order, liar]] if is_same_batch else [[order], [liar]]
        [*_, refused] = [reservations.reserve_stock(batch) for batch in batches]

        lamp.refresh_from_db()
        assert [each.event for each in refused] == [liar]
        assert "another payload" in refused[0].reason
        assert lamp.qty == 7
        assert len(told()) == 1

    def test_returns_an_order_that_names_another_product_the_second_time(self, lamp):
        order = an_order(lamp, 3)
        reservations.reserve_stock([order])
        [refused] = reservations.reserve_stock([an_order(new_id(), 3, order_id=order.order_id)])

        assert "another payload" in refused.reason

    def test_takes_the_integer_ids_of_older_producers_and_answers_with_them(self, lamp):
        reservations.reserve_stock([an_order(lamp, 3, order_id=4711)])
        reservations.reserve_stock([an_order(lamp, 3, order_id=4711)])

        assert told() == [("stock.reserved", 4711, 7)] * 2

    def test_writes_the_new_stock_into_the_cache(self, lamp):
        reservations.reserve_stock([an_order(lamp, 3)])

        assert msgspec.json.decode(cache.get(lamp.id).value)["qty"] == 7

    def test_leaves_nothing_when_the_outcome_cannot_be_recorded(self, lamp):
        with connection.cursor() as cursor:
            cursor.execute(
                "ALTER TABLE outbox_event ADD CONSTRAINT takes_nothing CHECK (false) NOT VALID"
            )
        with pytest.raises(DatabaseError):
            reservations.reserve_stock([an_order(lamp, 3)])

        lamp.refresh_from_db()
        assert lamp.qty == 10
        assert not Reservation.objects.exists()
        assert explained_stock(lamp) == 10

    def test_does_nothing_for_an_empty_batch(self):
        assert reservations.reserve_stock([]) == []

    def test_has_the_database_behind_it(self, lamp):
        with pytest.raises(IntegrityError, match="product_qty_not_negative"):
            Product.objects.filter(id=lamp.id).update(qty=-1)


# Few ids and many messages: duplicates, contradictions and shortages in most examples.
messages = st.tuples(st.integers(1, 6), st.integers(0, 1), st.integers(1, 4))
batches = st.lists(st.lists(messages, max_size=6), max_size=4)


class TestReserveStockInWhateverBatches:
    @given(batches=batches, stocks=st.tuples(st.integers(0, 12), st.integers(0, 12)))
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_keeps_the_books(self, batches, stocks):
        run = str(new_id())
        shelf = [
            services.create_product(name=f"Product {position}", price=1, qty=qty)
            for position, qty in enumerate(stocks)
        ]
        refused = []
        for batch in batches:
            refused += reservations.reserve_stock(
                [
                    an_order(shelf[position], quantity, order_id=f"{run}-{number}")
                    for number, position, quantity in batch
                ]
            )

        decided = Reservation.objects.filter(order_id__startswith=run)
        asked = Counter(number for batch in batches for number, _, _ in batch)
        assert decided.count() == len(asked)
        told_of_this_run = [order_id for _, order_id, _ in told() if str(order_id).startswith(run)]
        assert len(told_of_this_run) == sum(asked.values()) - len(refused)
        for product, initial in zip(shelf, stocks, strict=True):
            product.refresh_from_db()
            reserved = decided.filter(
                product_id=product.id, outcome=Reservation.Outcome.RESERVED
            ).aggregate(total=Sum("quantity"))
            assert product.qty == explained_stock(product) == initial - (reserved["total"] or 0)
            assert product.qty >= 0
        # Nothing is refused while there was stock.
        for rejected in decided.filter(outcome=Reservation.Outcome.REJECTED):
            assert rejected.quantity > rejected.stock_before
