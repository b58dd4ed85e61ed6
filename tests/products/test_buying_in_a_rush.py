"""Parallel buyers of the last units, on real connections with real commits."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django.db import OperationalError, connection
from django.db.models import Sum

from products_project.products import services
from products_project.products.models import Product, Reservation
from servicekit.contracts.events import OrderCancelled, OrderCreated
from servicekit.identifiers import new_id
from tests.products.answers import release, reserve
from tests.servicekit.interleaving import in_every_order, run_in_order

UNITS = 3
BUYERS = 8

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def lamp() -> Product:
    return services.create_product(name="Lamp", price=190_000, qty=UNITS)


def rush(buy: Callable[[threading.Barrier], bool]) -> int:
    """Let everybody buy at once; return how many were sold a unit."""
    everybody_has_looked = threading.Barrier(BUYERS, timeout=60)

    def buy_on_a_connection_of_ones_own(_buyer: int) -> bool:
        try:
            return buy(everybody_has_looked)
        finally:
            connection.close()

    with ThreadPoolExecutor(BUYERS) as buyers:
        return sum(buyers.map(buy_on_a_connection_of_ones_own, range(BUYERS)))


def take_one_carelessly(lamp: Product, everybody_has_looked: threading.Barrier) -> bool:
    """Read, look, write: what the first shop anybody programs does."""
    stock = Product.objects.get(id=lamp.id).qty
    everybody_has_looked.wait()
    if stock < 1:
        return False
    Product.objects.filter(id=lamp.id).update(qty=stock - 1)
    return True


def reserve_one(lamp: Product) -> bool:
    order = OrderCreated(order_id=str(new_id()), product_id=lamp.id, quantity=1)
    reserve([order])
    decision = Reservation.objects.get(order_id=order.order_id)
    return decision.outcome == Reservation.Outcome.RESERVED


def unexplained_units(lamp: Product) -> int:
    lamp.refresh_from_db()
    return lamp.qty - (lamp.movements.aggregate(total=Sum("delta"))["total"] or 0)


class TestRush:
    def test_does_oversell_a_careless_shop(self, lamp):
        # Proves that `rush` overlaps its buyers. If this fails, the tests below pass for the
        # wrong reason.
        assert rush(lambda barrier: take_one_carelessly(lamp, barrier)) > UNITS

    def test_does_oversell_ours_without_its_row_lock(self, lamp, monkeypatch):
        everybody_has_looked = threading.Barrier(BUYERS, timeout=60)

        def look_without_locking(ids: object) -> dict[object, Product]:
            seen = Product.objects.in_bulk(set(ids))
            everybody_has_looked.wait()
            return seen

        monkeypatch.setattr(Product.objects, "lock", look_without_locking)

        assert rush(lambda _barrier: reserve_one(lamp)) > UNITS
        assert unexplained_units(lamp) != 0


class TestReserveStockInARush:
    def test_sells_every_unit_once(self, lamp):
        def wait_and_reserve(barrier: threading.Barrier) -> bool:
            barrier.wait()
            return reserve_one(lamp)

        sold = rush(wait_and_reserve)

        lamp.refresh_from_db()
        assert (sold, lamp.qty) == (UNITS, 0)
        assert unexplained_units(lamp) == 0

    def test_makes_the_second_buyer_wait_for_the_first(self, lamp):
        # The same, but forced: the others are provably there while the first has the lock.
        first_has_the_lock, first_may_go = threading.Event(), threading.Event()
        lock = Product.objects.lock

        def lock_and_hold(ids: object) -> dict[object, Product]:
            locked = lock(ids)
            if not first_has_the_lock.is_set():
                first_has_the_lock.set()
                first_may_go.wait(60)
            return locked

        with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as buyers:
            patch.setattr(Product.objects, "lock", lock_and_hold)
            first = buyers.submit(self.reserve_all, lamp)
            assert first_has_the_lock.wait(60)
            second = buyers.submit(self.reserve_all, lamp)
            assert not self.is_done_soon(second)
            first_may_go.set()

            assert (first.result(60), second.result(60)) == (True, False)

    def test_gives_an_order_that_two_consumers_have_its_units_once(self, lamp):
        order = OrderCreated(order_id=str(new_id()), product_id=lamp.id, quantity=1)

        def reserve_the_same(barrier: threading.Barrier) -> bool:
            barrier.wait()
            reserve([order])
            return True

        rush(reserve_the_same)

        lamp.refresh_from_db()
        assert lamp.qty == UNITS - 1
        assert unexplained_units(lamp) == 0

    def test_asks_for_another_attempt_when_an_order_for_two_products_is_decided_twice_at_once(
        self, lamp, monkeypatch
    ):
        # No product lock keeps these two apart. One is decided, the other comes again.
        lantern = services.create_product(name="Lantern", price=1, qty=UNITS)
        order_id = str(new_id())
        both_have_looked = threading.Barrier(2, timeout=60)
        decided = Reservation.objects.decided

        def look_together(order_ids: Iterable[str]) -> dict[str, Reservation]:
            known = decided(order_ids)
            both_have_looked.wait()
            return known

        def try_to_reserve(product: Product) -> str:
            order = OrderCreated(order_id=order_id, product_id=product.id, quantity=1)
            try:
                reserve([order])
            except OperationalError:
                return "comes again"
            finally:
                connection.close()
            return "decided"

        monkeypatch.setattr(Reservation.objects, "decided", look_together)
        with ThreadPoolExecutor(2) as consumers:
            outcomes = sorted(consumers.map(try_to_reserve, [lamp, lantern]))

        lamp.refresh_from_db()
        lantern.refresh_from_db()
        assert outcomes == ["comes again", "decided"]
        assert Reservation.objects.count() == 1
        assert lamp.qty + lantern.qty == 2 * UNITS - 1

    def test_does_not_deadlock_on_two_products_in_opposite_order(self, lamp):
        lantern = services.create_product(name="Lantern", price=1, qty=UNITS)
        turns = iter([(lamp, lantern), (lantern, lamp)] * (BUYERS // 2))

        def reserve_both(barrier: threading.Barrier) -> bool:
            orders = [
                OrderCreated(order_id=str(new_id()), product_id=product.id, quantity=1)
                for product in next(turns)
            ]
            barrier.wait()
            reserve(orders)
            return True

        assert rush(reserve_both) == BUYERS
        lamp.refresh_from_db()
        lantern.refresh_from_db()
        assert (lamp.qty, lantern.qty) == (0, 0)

    @staticmethod
    def reserve_all(lamp: Product) -> bool:
        order = OrderCreated(order_id=str(new_id()), product_id=lamp.id, quantity=UNITS)
        try:
            reserve([order])
            decision = Reservation.objects.get(order_id=order.order_id)
            return decision.outcome == Reservation.Outcome.RESERVED
        finally:
            connection.close()

    @staticmethod
    def is_done_soon(future) -> bool:
        with contextlib.suppress(TimeoutError):
            future.result(0.2)
        return future.done()


class TestEveryOrderOfStatements:
    """Two orders and a cancellation of an earlier one, which together want more than there is."""

    @staticmethod
    def race(choices: Sequence[int]) -> list[int]:
        lamp = services.create_product(name="Lamp", price=1, qty=UNITS + 1)
        sold, *wanted = (
            OrderCreated(order_id=str(new_id()), product_id=lamp.id, quantity=UNITS)
            for _ in range(3)
        )
        reserve([sold])
        regretted = OrderCancelled(order_id=sold.order_id, product_id=lamp.id, quantity=UNITS)
        options = run_in_order(
            [partial(release, [regretted]), *(partial(reserve, [order]) for order in wanted)],
            choices,
        )

        outcomes = list(
            Reservation.objects.values_list("outcome", flat=True).filter(product_id=lamp.id)
        )
        assert unexplained_units(lamp) == 0, "the books differ"
        assert lamp.qty == UNITS + 1 - UNITS * outcomes.count("RESERVED"), "the books differ"
        # Each movement but the first has raised it by one.
        assert lamp.version == lamp.movements.count(), "the books differ"
        assert outcomes.count("RELEASED") == 1
        return options

    def test_keeps_the_books(self):
        assert in_every_order(self.race) > 100

    def test_does_not_without_the_row_lock(self, monkeypatch):
        monkeypatch.setattr(Product.objects, "lock", lambda ids: Product.objects.in_bulk(set(ids)))

        with pytest.raises(AssertionError, match="the books differ"):
            in_every_order(self.race)
