"""Which orders get their stock."""

from uuid import UUID

import msgspec
import pytest
from django.db import DatabaseError, IntegrityError, connection
from django.db.models import Sum

from products_project.products import cache, reservations
from products_project.products.models import Product, Reservation, StockMovement
from servicekit.contracts.events import OrderCreated
from servicekit.correlation import Correlation
from servicekit.identifiers import new_id
from servicekit.outbox.models import OutgoingEvent
from tests.products.answers import as_ours, reserve, told

pytestmark = pytest.mark.django_db


def an_order(product: Product | UUID, quantity: int = 1, order_id: int | str = "") -> OrderCreated:
    product_id = product.id if isinstance(product, Product) else product
    return OrderCreated(
        order_id=order_id or str(new_id()), product_id=product_id, quantity=quantity
    )


def explained_stock(product: Product) -> int:
    return product.movements.aggregate(total=Sum("delta"))["total"] or 0


class TestReserveStock:
    def test_takes_the_units_of_an_order_and_explains_it(self, lamp):
        order = an_order(lamp, 3)
        reserve([order])

        lamp.refresh_from_db()
        assert (lamp.qty, lamp.version) == (7, 2)
        movement = lamp.movements.get(reason=StockMovement.Reason.ORDER)
        assert (movement.delta, movement.order_id) == (-3, order.order_id)
        assert explained_stock(lamp) == 7
        assert msgspec.json.decode(cache.get(lamp.id).value)["qty"] == 7

    def test_decides_and_tells_of_a_batch_in_one_message_all_or_nothing_per_order(self, lamp):
        nowhere, few, many = an_order(new_id()), an_order(lamp, 3), an_order(lamp, 30)
        handled = reserve([nowhere, few, many])

        [answer] = handled.answers
        assert (answer.exchange, answer.routing_key) == ("product.exchange", "stock.decided")
        assert told(handled) == [
            ("REJECTED", nowhere.order_id, 0),
            ("RESERVED", few.order_id, 7),
            ("REJECTED", many.order_id, 7),
        ]
        assert handled.unprocessable == []
        reasons = dict(Reservation.objects.values_list("order_id", "reason"))
        assert reasons == {
            nowhere.order_id: "product_not_found", few.order_id: "",
            many.order_id: "insufficient_stock",
        }  # fmt: skip
        lamp.refresh_from_db()
        assert lamp.qty == 7

    def test_says_of_each_what_the_timeline_of_its_order_shows(self, lamp):
        order, product_id = an_order(lamp, 3), str(lamp.id)
        source = Correlation("me", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        [answer] = reservations.reserve_stock(
            [as_ours(order, source, 1_700_000_000_123), as_ours(an_order(lamp, 30))]
        ).answers

        first, second = msgspec.json.decode(answer.body)["decisions"]
        assert first.pop("decidedAt").endswith("Z")
        assert first == {
            "orderId": order.order_id, "productId": product_id, "quantity": 3,
            "outcome": "RESERVED", "remaining": 7, "version": 2, "price": lamp.price,
            "announcedAt": "2023-11-14T22:13:20.123Z",
            "requestId": "me", "traceparent": source.traceparent,
        }  # fmt: skip
        assert (second["reason"], second["version"]) == ("insufficient_stock", 2)
        assert not second.keys() & {"announcedAt", "requestId", "traceparent"}

    def test_records_nothing_in_the_outbox(self, lamp):
        before = OutgoingEvent.objects.count()
        reserve([an_order(lamp, 3), an_order(lamp, 30)])

        assert OutgoingEvent.objects.count() == before

    def test_decides_in_the_order_of_arrival(self, lamp):
        first, too_much, last = an_order(lamp, 6), an_order(lamp, 5), an_order(lamp, 4)
        handled = reserve([first, too_much, last])

        assert [(outcome, order_id) for outcome, order_id, _ in told(handled)] == [
            ("RESERVED", first.order_id),
            ("REJECTED", too_much.order_id),
            ("RESERVED", last.order_id),
        ]
        lamp.refresh_from_db()
        assert lamp.qty == 0

    @pytest.mark.parametrize("sizes", [[2], [1, 1]], ids=["at once", "later"])
    def test_tells_a_duplicate_again_and_takes_its_units_once(self, lamp, sizes):
        order = an_order(lamp, 3)
        handled = [reserve([order] * size) for size in sizes]

        lamp.refresh_from_db()
        assert (lamp.qty, lamp.version) == (7, 2)
        assert told(*handled) == [("RESERVED", order.order_id, 7)] * 2

    def test_tells_the_same_fact_under_the_same_event_id(self, lamp):
        orders = [an_order(lamp, 3), an_order(lamp, 30)]
        [first], [second] = (reserve(orders).answers for _ in range(2))

        assert first.message_id == second.message_id
        assert first.body == second.body

    @pytest.mark.parametrize("is_same_batch", [True, False], ids=["at once", "later"])
    def test_returns_an_order_that_contradicts_its_own_decision(self, lamp, is_same_batch):
        order = an_order(lamp, 3)
        liar = an_order(lamp, 4, order_id=order.order_id)
        batches = [[order, liar]] if is_same_batch else [[order], [liar]]
        handled = [reserve(batch) for batch in batches]

        lamp.refresh_from_db()
        [refused] = handled[-1].unprocessable
        assert refused.event is liar
        assert "another payload" in refused.reason
        assert lamp.qty == 7
        assert len(told(*handled)) == 1

    def test_takes_the_integer_ids_of_older_producers_and_answers_with_them(self, lamp):
        batches = [reserve([an_order(lamp, 3, order_id=4711)]) for _ in range(2)]

        assert told(*batches) == [("RESERVED", 4711, 7)] * 2

    def test_leaves_nothing_when_the_last_of_it_cannot_be_written(self, lamp):
        # Reservation and movement are written by then.
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE product ADD CONSTRAINT keeps CHECK (qty = 10) NOT VALID")
        with pytest.raises(DatabaseError):
            reserve([an_order(lamp, 3)])

        lamp.refresh_from_db()
        assert lamp.qty == 10
        assert not Reservation.objects.exists()
        assert explained_stock(lamp) == 10

    def test_does_nothing_for_an_empty_batch(self):
        handled = reserve([])

        assert (list(handled.answers), list(handled.unprocessable)) == ([], [])

    def test_has_the_database_behind_it(self, lamp):
        with pytest.raises(IntegrityError, match="product_qty_not_negative"):
            Product.objects.filter(id=lamp.id).update(qty=-1)
