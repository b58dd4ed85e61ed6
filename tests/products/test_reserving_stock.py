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
    def test_takes_the_units_of_an_order(self, lamp):
        reserve([an_order(lamp, 3)])

        lamp.refresh_from_db()
        assert (lamp.qty, lamp.version) == (7, 2)

    def test_explains_what_it_took(self, lamp):
        order = an_order(lamp, 3)
        reserve([order])

        movement = lamp.movements.get(reason=StockMovement.Reason.ORDER)
        assert (movement.delta, movement.order_id) == (-3, order.order_id)
        assert explained_stock(lamp) == 7

    def test_tells_the_outcome_and_what_is_left(self, lamp):
        order = an_order(lamp, 3)

        assert told(reserve([order])) == [("RESERVED", order.order_id, 7)]

    def test_tells_of_a_batch_in_one_message(self, lamp):
        orders = [an_order(lamp, 3), an_order(lamp, 30), an_order(new_id())]
        handled = reserve(orders)

        [answer] = handled.answers
        assert (answer.exchange, answer.routing_key) == ("product.exchange", "stock.decided")
        assert told(handled) == [
            ("RESERVED", orders[0].order_id, 7),
            ("REJECTED", orders[1].order_id, 7),
            ("REJECTED", orders[2].order_id, 0),
        ]

    def test_says_of_each_what_the_timeline_of_its_order_shows(self, lamp):
        order, product_id = an_order(lamp, 3), str(lamp.id)
        source = Correlation("me", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        [answer] = reservations.reserve_stock(
            [
                as_ours(order, source, 1_700_000_000_123),
                as_ours(an_order(lamp, 30)),
            ]
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

    def test_gives_an_order_all_or_nothing(self, lamp):
        order = an_order(lamp, 11)
        handled = reserve([order])

        lamp.refresh_from_db()
        assert lamp.qty == 10
        assert told(handled) == [("REJECTED", order.order_id, 10)]
        assert Reservation.objects.get().reason == "insufficient_stock"

    def test_gives_the_last_unit(self, lamp):
        reserve([an_order(lamp, 10)])

        lamp.refresh_from_db()
        assert lamp.qty == 0

    def test_decides_in_the_order_of_arrival(self, lamp):
        first, too_much, last = an_order(lamp, 6), an_order(lamp, 5), an_order(lamp, 4)
        handled = reserve([first, too_much, last])

        assert [(outcome, order_id) for outcome, order_id, _ in told(handled)] == [
            ("RESERVED", first.order_id),
            ("REJECTED", too_much.order_id),
            ("RESERVED", last.order_id),
        ]

    def test_rejects_an_unknown_product(self, lamp):  # noqa: ARG002 - not this one
        order = an_order(new_id())
        handled = reserve([order])

        assert handled.unprocessable == []
        assert told(handled) == [("REJECTED", order.order_id, 0)]
        assert Reservation.objects.get().reason == "product_not_found"

    def test_does_not_let_an_unknown_product_hold_up_the_others(self, lamp):
        reserve([an_order(new_id()), an_order(lamp, 3)])

        lamp.refresh_from_db()
        assert lamp.qty == 7

    def test_tells_a_duplicate_in_the_same_batch_again_and_takes_its_units_once(self, lamp):
        order = an_order(lamp, 3)
        handled = reserve([order, order])

        lamp.refresh_from_db()
        assert lamp.qty == 7
        assert told(handled) == [("RESERVED", order.order_id, 7)] * 2

    def test_tells_a_duplicate_in_a_later_batch_again_and_takes_its_units_once(self, lamp):
        order = an_order(lamp, 3)
        batches = [reserve([order]), reserve([order])]

        lamp.refresh_from_db()
        assert (lamp.qty, lamp.version) == (7, 2)
        assert told(*batches) == [("RESERVED", order.order_id, 7)] * 2

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

    def test_writes_the_new_stock_into_the_cache(self, lamp):
        reserve([an_order(lamp, 3)])

        assert msgspec.json.decode(cache.get(lamp.id).value)["qty"] == 7

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
