"""At what price an order is accepted, and how long a price is remembered."""

import time
from collections.abc import Callable
from uuid import UUID

import pytest
from django_redis import get_redis_connection

from orders_project.orders import catalog, product_service
from orders_project.orders.placement import pricing
from orders_project.orders.placement.pricing import InsufficientStock, PriceUnknown, Pricing
from servicekit.identifiers import new_id
from servicekit.timestamps import now_in_milliseconds, rfc3339
from tests.orders.stock_news import put, someone_elses
from tests.servicekit.private_broker import unused_port

MEMORY_SECONDS = 0.25
MAX_AGE_SECONDS = 10
MAX_AGE_WITHOUT_SOURCE_SECONDS = 3600


class Clock:
    """Stands still until a test says otherwise."""

    now = 1000.0
    _began = int(time.time())

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self._began + self.now - 1000.0


@pytest.fixture
def clock(monkeypatch, settings) -> Clock:
    settings.PRICE_MEMORY_SECONDS = MEMORY_SECONDS
    settings.PRICE_MAX_AGE_SECONDS = MAX_AGE_SECONDS
    settings.PRICE_MAX_AGE_WITHOUT_SOURCE_SECONDS = MAX_AGE_WITHOUT_SOURCE_SECONDS
    made = Clock()
    for module in (pricing, catalog, product_service):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def lamp() -> UUID:
    return new_id()


@pytest.fixture
def price(clock, product_service, lamp) -> Callable[[], int]:  # noqa: ARG001 - stands still
    """Return a function that tells what one lamp costs, in one process."""
    process = Pricing()
    return lambda quantity=1: process.offer(lamp, quantity).total_price


@pytest.fixture
def redis_goes_away(request, clock) -> Callable[[], None]:
    """Return a function that takes Redis away for so long that what is remembered is old."""

    def go() -> None:
        request.getfixturevalue("without_redis")
        clock.now += MAX_AGE_SECONDS + 1

    return go


class TestARememberedPrice:
    def test_spares_redis_the_question(self, price, lamp, monkeypatch):
        put(lamp, price=5)
        assert price() == 5
        monkeypatch.setattr(catalog, "get", pytest.fail)

        assert [price(), price(3)] == [5, 15]

    def test_is_sold_at_until_its_time_is_over_and_then_the_new_one_is(self, price, lamp, clock):
        put(lamp, price=5)
        assert price() == 5
        put(lamp, price=7, version=2)

        clock.now += MEMORY_SECONDS * 0.9
        assert price() == 5
        clock.now += MEMORY_SECONDS * 0.2
        assert price() == 7

    def test_stays_while_redis_says_so(self, price, lamp, clock):
        put(lamp, price=5)
        for _ in range(5):
            assert price() == 5
            clock.now += MEMORY_SECONDS * 2

    def test_is_looked_up_by_one_of_many_that_ask_at_once(self, price, lamp, clock, monkeypatch):
        put(lamp, price=5)
        assert price() == 5
        clock.now += MEMORY_SECONDS * 2
        asked, get = [], catalog.get

        def slowly(product_id: UUID) -> object:
            # Somebody else asks while we wait for the answer.
            asked.append(product_id)
            if len(asked) == 1:
                assert price() == 5
            return get(product_id)

        monkeypatch.setattr(catalog, "get", slowly)
        assert price() == 5
        assert asked == [lamp]

    def test_is_sold_at_while_redis_is_away(self, price, lamp, clock, product_service, request):
        put(lamp, price=5)
        assert price() == 5
        request.getfixturevalue("without_redis")

        for _ in range(3):
            clock.now += MEMORY_SECONDS * 2
            assert price() == 5
        assert product_service.asked == []

    def test_is_compared_with_the_source_once_it_is_old(
        self, price, lamp, product_service, redis_goes_away
    ):
        put(lamp, price=5)
        assert price() == 5
        product_service.change(lamp, price=7, qty=10, version=2)
        redis_goes_away()

        assert price() == 7

    def test_is_sold_at_when_redis_and_source_are_away(
        self, price, lamp, settings, redis_goes_away
    ):
        put(lamp, price=5)
        assert price() == 5
        redis_goes_away()
        settings.PRODUCT_API_URL = f"http://127.0.0.1:{unused_port()}/products"

        assert price() == 5

    def test_is_replaced_at_once_by_what_the_source_says(self, price, lamp, product_service):
        put(lamp, price=5, qty=1)
        assert price() == 5
        product_service.change(lamp, price=7, qty=10, version=2)

        # More than the copy has: only the source may refuse, and says the new price.
        assert price(2) == 14
        assert price() == 7

    def test_is_not_refused_by(self, price, lamp, product_service):
        put(lamp, price=5, qty=1)
        assert price() == 5
        product_service.change(lamp, price=5, qty=1, version=1)

        with pytest.raises(InsufficientStock):
            price(2)

    def test_is_one_of_so_many(self, clock, monkeypatch):  # noqa: ARG002 - stands still
        monkeypatch.setattr(pricing, "_REMEMBERED_PRODUCTS", 3)
        process = Pricing()
        for _ in range(10):
            product_id = new_id()
            put(product_id, price=5)
            assert process.offer(product_id, 1).total_price == 5
            assert len(process._remembered) <= 3


class TestTheAgeOfAPrice:
    @pytest.mark.parametrize("memory_seconds", [0, 3600])
    def test_has_the_source_asked_whoever_remembers_it(
        self, request, settings, product_service, lamp, memory_seconds
    ):
        clock = request.getfixturevalue("clock")
        settings.PRICE_MEMORY_SECONDS = memory_seconds
        process = Pricing()
        put(lamp, price=5)
        product_service.change(lamp, price=7, qty=10, version=2)
        assert process.offer(lamp, 1).total_price == 5

        clock.now += MAX_AGE_SECONDS
        assert process.offer(lamp, 1).total_price == 5
        clock.now += 1
        assert process.offer(lamp, 1).total_price == 7
        assert process.offer(lamp, 1).total_price == 7
        assert product_service.asked == [lamp]

    @pytest.mark.parametrize(("without_source", "limit"), [(3600, 3600), (0, MAX_AGE_SECONDS)])
    def test_has_a_limit_while_the_source_is_away(
        self, request, settings, lamp, without_source, limit
    ):
        clock = request.getfixturevalue("clock")
        request.getfixturevalue("product_service").is_broken = True
        settings.PRICE_MAX_AGE_WITHOUT_SOURCE_SECONDS = without_source
        process = Pricing()
        put(lamp, price=5)

        clock.now += limit
        assert process.offer(lamp, 1).total_price == 5
        clock.now += 1
        with pytest.raises(PriceUnknown):
            process.offer(lamp, 1)

    def test_is_not_waited_for_where_another_price_has_been_heard_of(
        self, price, lamp, product_service
    ):
        product_service.is_broken = True
        put(lamp, price=5)
        decided = rfc3339(now_in_milliseconds())
        decision = someone_elses(1, product_id=lamp, price=7, decided_at=decided)
        catalog.refresh_stock([decision])

        with pytest.raises(PriceUnknown):
            price()

    def test_is_asked_for_once_at_a_time_without_redis(
        self, price, lamp, product_service, redis_goes_away, clock
    ):
        product_service.change(lamp, price=5, qty=10, version=1)
        redis_goes_away()
        for _ in range(3):
            assert price() == 5
            clock.now += MEMORY_SECONDS * 2

        assert product_service.asked == [lamp]


class TestACopyThatCannotBeRead:
    @pytest.mark.parametrize("garbage", [b"", b"garbage", b"\xff", b"{}"])
    def test_has_the_source_asked(self, price, lamp, product_service, garbage):
        product_service.change(lamp, price=7, qty=10, version=1)
        get_redis_connection("default").set(f"catalog:{lamp}", garbage)

        assert price() == 7

    def test_prices_nothing_without_the_source(self, price, lamp, product_service):
        product_service.is_broken = True
        get_redis_connection("default").set(f"catalog:{lamp}", b"garbage")

        with pytest.raises(PriceUnknown):
            price()
