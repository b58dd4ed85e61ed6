"""What becomes of the stock of cancelled orders, in whichever order the events come."""

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from django.db import connection
from django.db.models import Sum

from products_project.products import cache, reservations, services
from products_project.products.models import Product, Reservation
from servicekit.contracts.events import OrderCancelled, OrderCreated, StockReleased
from servicekit.contracts.fields import MAX_INT32
from servicekit.correlation import Correlation
from servicekit.identifiers import new_id
from servicekit.messaging.consumer import Handled
from servicekit.messaging.envelope import Received
from tests.products.answers import as_ours, release, reserve, told

QUANTITY = 3


def created(product: Product, order_id: str, quantity: int = QUANTITY) -> OrderCreated:
    return OrderCreated(order_id=order_id, product_id=product.id, quantity=quantity)


def cancelled(product: Product, order_id: str, quantity: int = QUANTITY) -> OrderCancelled:
    return OrderCancelled(order_id=order_id, product_id=product.id, quantity=quantity)


def stock_of(product: Product) -> tuple[int, int]:
    """The stock, as it is and as its movements explain it."""
    product.refresh_from_db()
    return product.qty, product.movements.aggregate(total=Sum("delta"))["total"]


@pytest.mark.django_db
class TestReleaseStock:
    @pytest.fixture
    def order_id(self) -> str:
        return str(new_id())

    def test_gives_back_what_was_reserved_explains_it_and_tells_what_is_there_now(
        self, lamp, order_id
    ):
        reserve([created(lamp, order_id)])
        [answer] = release([cancelled(lamp, order_id)]).answers

        assert stock_of(lamp) == (10, 10)
        assert Reservation.objects.get().outcome == Reservation.Outcome.RELEASED
        movements = lamp.movements.order_by("id").values_list("delta", "reason", "qty_after")
        assert list(movements) == [(10, "initial", 10), (-3, "order", 7), (3, "cancellation", 10)]
        body = msgspec.json.decode(answer.body)
        assert (answer.exchange, answer.routing_key) == ("product.exchange", "stock.released")
        assert (body["orderId"], body["remaining"], body["version"]) == (order_id, 10, 3)
        assert body["releasedAt"].endswith("Z")
        assert msgspec.json.decode(cache.get(lamp.id).value)["qty"] == 10

    def test_keeps_an_order_from_its_stock_that_it_has_overtaken(self, lamp, order_id):
        handled = [release([cancelled(lamp, order_id)]), reserve([created(lamp, order_id)])]

        assert Reservation.objects.get().outcome == Reservation.Outcome.CANCELLED
        assert told(*handled) == [("CANCELLED", order_id, 10)] * 2
        assert stock_of(lamp) == (10, 10)

    def test_gives_back_what_an_archived_product_had_sold(self, lamp, order_id):
        reserve([created(lamp, order_id)])
        services.archive_product(lamp.id)
        release([cancelled(lamp, order_id)])

        assert stock_of(lamp) == (10, 10)

    def test_gives_back_more_than_a_person_could_add(self, lamp, order_id):
        reserve([created(lamp, order_id)])
        services.move_stock(product_id=lamp.id, delta=MAX_INT32 - 7, reason="restock")
        handled = release([cancelled(lamp, order_id)])

        assert told(handled) == [("stock.released", order_id, MAX_INT32 + 3)]
        assert StockReleased.from_json(handled.answers[0].body).remaining == MAX_INT32 + 3
        assert stock_of(lamp) == (MAX_INT32 + 3, MAX_INT32 + 3)
        with pytest.raises(services.StockTooLarge):
            services.move_stock(product_id=lamp.id, delta=1, reason="restock")
        services.move_stock(product_id=lamp.id, delta=-1, reason="correction")
        reserve([created(lamp, str(new_id()))])
        assert stock_of(lamp) == (MAX_INT32 - 1, MAX_INT32 - 1)

    def test_refuses_a_cancellation_of_more_than_was_ordered(self, lamp, order_id):
        reserve([created(lamp, order_id)])

        handled = release([cancelled(lamp, order_id, quantity=9)])

        [refused] = handled.unprocessable
        assert told(handled) == []
        assert refused.reason == f"order {order_id} was decided with another payload"
        assert stock_of(lamp) == (7, 7)

    def test_answers_each_cancellation_whatever_became_of_its_order(self, lamp):
        reserved, rejected, unknown, before = (str(new_id()) for _ in range(4))
        reserve([created(lamp, reserved), created(lamp, before)])
        reserve([created(lamp, rejected, quantity=11)])
        release([cancelled(lamp, before)])
        ids = (reserved, rejected, unknown, before)
        handled = release([cancelled(lamp, each, 11 if each == rejected else 3) for each in ids])

        outcomes = ("stock.released", "REJECTED", "CANCELLED", "stock.released")
        expected = zip(outcomes, ids, [10] * 4, strict=True)
        assert sorted(told(handled)) == sorted(expected)

    def test_gives_the_same_answers_when_the_same_batch_comes_again(self, lamp, order_id):
        reserve([created(lamp, order_id)])
        batch = [cancelled(lamp, order_id), cancelled(lamp, str(new_id()))]
        first, second = (release(batch).answers for _ in range(2))

        assert [answer.message_id for answer in first] == [answer.message_id for answer in second]
        assert [answer.routing_key for answer in first] == ["stock.decided", "stock.released"]

    def test_answers_with_the_request_that_cancelled_the_order(self, lamp, order_id):
        reserve([created(lamp, order_id)])
        source = Correlation("me", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        unknown = as_ours(cancelled(lamp, str(new_id())), source)
        decided, released = reservations.release_stock(
            [as_ours(cancelled(lamp, order_id), source), unknown]
        ).answers

        assert released.headers.items() >= source.headers.items()
        [decision] = msgspec.json.decode(decided.body)["decisions"]
        assert (decision["requestId"], decision["traceparent"]) == tuple(source)


@pytest.mark.django_db(transaction=True)
class TestReleaseBesideReserve:
    ORDERS = 12

    def test_leaves_the_stock_whole_when_both_come_at_once(self):
        lamp = services.create_product(name="Lamp", price=1, qty=100)
        order_ids = [str(new_id()) for _ in range(self.ORDERS)]
        everybody = threading.Barrier(2, timeout=60)

        def handle_all(handle, event) -> None:
            everybody.wait()
            for order_id in order_ids:
                handle([event(lamp, order_id)])
            connection.close()

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(handle_all, (reserve, release), (created, cancelled)))

        assert stock_of(lamp) == (100, 100)
        outcomes = set(Reservation.objects.values_list("outcome", flat=True))
        assert outcomes <= {"RELEASED", "CANCELLED"}
        assert Reservation.objects.count() == self.ORDERS


@pytest.mark.django_db
class TestAnOrderOfAnotherProducer:
    @staticmethod
    def foreign(handled: Handled) -> list[bool]:
        """Whether each answer is about one."""
        bodies = [msgspec.json.decode(answer.body) for answer in handled.answers]
        parts = [part for body in bodies for part in body.get("decisions", [body])]
        return [part.get("foreign", False) for part in parts]

    @pytest.mark.parametrize("message_id", [None, str(new_id())])
    def test_is_decided_and_released_and_called_so(self, lamp, message_id):
        order_id = str(new_id())
        order = OrderCreated(order_id=order_id, product_id=lamp.id, quantity=2)
        theirs = [Received(order, message_id=message_id)]
        assert self.foreign(reservations.reserve_stock(theirs)) == [True]
        assert self.foreign(reservations.reserve_stock(theirs)) == [True]

        gone = [Received(cancelled(lamp, order_id, 2), message_id=message_id)]
        assert self.foreign(reservations.release_stock(gone)) == [True]
        assert Reservation.objects.get().is_foreign
        lamp.refresh_from_db()
        assert lamp.qty == 10

    def test_is_ours_once_the_order_service_has_announced_it(self, lamp):
        order = OrderCreated(order_id=str(new_id()), product_id=lamp.id, quantity=2)
        assert self.foreign(reservations.reserve_stock([Received(order)])) == [True]

        assert self.foreign(reserve([order])) == [False]
        assert self.foreign(reservations.reserve_stock([Received(order)])) == [False]
        assert not Reservation.objects.get().is_foreign
