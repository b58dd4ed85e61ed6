"""Our own copy of what the product service sells, from news that overtake each other."""

import time
from datetime import timedelta
from functools import partial
from itertools import permutations
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django_redis import get_redis_connection
from hypothesis import given, settings
from hypothesis import strategies as st

from orders_project.orders import catalog
from servicekit.caching.redis import UNAVAILABLE
from servicekit.contracts.events import ProductArchived, ProductUpdated, StockDecision, StockOutcome
from servicekit.identifiers import new_id
from servicekit.messaging.envelope import Received
from servicekit.timestamps import now_in_milliseconds, rfc3339
from tests.orders.stock_news import put, someone_elses
from tests.servicekit.private_broker import eventually


def about(kind: Any, product_id: UUID, **facts: int) -> ProductUpdated | ProductArchived:
    at = "2026-11-23T10:00:00.000Z"
    return kind(**{"price": 5, "qty": 10, **facts}, id=product_id, name="Lamp", created_at=at)


updated, archived = partial(about, ProductUpdated), partial(about, ProductArchived)


def announce(event: ProductUpdated | ProductArchived, *, seconds_ago: int = 0) -> None:
    """Hear of what the product service recorded so long ago."""
    news = Received(event, happened_at=int(time.time()) - seconds_ago)
    catalog.refresh_products([news])


def left(product_id: UUID, **facts: Any) -> StockDecision:
    """A decision about somebody's order, and what it has left in stock."""
    return someone_elses(1, product_id=product_id, **facts)


def state(product_id: UUID) -> tuple[int, int]:
    copy = catalog.get(product_id)
    return copy.price, copy.qty


@pytest.fixture
def lamp() -> UUID:
    return new_id()


class TestPut:
    def test_makes_a_copy(self, lamp):
        put(lamp, price=190_000, qty=7, version=3)

        copy = catalog.get(lamp)
        assert (copy.id, copy.price, copy.qty, copy.version) == (lamp, 190_000, 7, 3)
        assert copy.is_within(10)

    @pytest.mark.parametrize("price", [2**53 - 1, 9_999_999_999_999_999, 1_234_567_890_123_457])
    def test_keeps_a_price_of_sixteen_digits_and_a_stock_of_31_bits_exact(self, lamp, price):
        put(lamp, price=price, qty=2**31 - 1)
        assert catalog.get(lamp).qty == 2**31 - 1
        catalog.refresh_stock([left(lamp, remaining=1, version=2)])

        assert catalog.get(lamp).price == price

    def test_does_not_put_the_past_over_the_present(self, lamp):
        put(lamp, price=2, version=2)
        put(lamp, price=1, version=1)

        assert catalog.get(lamp).price == 2

    def test_can_be_read_with_redis_cli(self, lamp):
        catalog.put(
            product_id=lamp, name='A "Lámpara"', price=5, qty=1, version=1, as_of=1_800_000_000
        )

        copy = msgspec.json.decode(get_redis_connection("default").get(f"catalog:{lamp}"))
        assert (copy["id"], copy["name"], copy["price"]) == (str(lamp), 'A "Lámpara"', 5)

    def test_does_not_last_for_ever(self, lamp):
        put(lamp)

        redis = get_redis_connection("default")
        assert 0 < redis.ttl(f"catalog:{lamp}") <= catalog.TTL_SECONDS
        assert 0 < redis.ttl(f"catalog:{lamp}:parts") <= catalog.TTL_SECONDS

    @pytest.mark.usefixtures("without_redis")
    def test_does_nothing_without_redis(self, lamp):
        put(lamp)

        assert catalog.get(lamp) is UNAVAILABLE


GARBAGE = {
    "nothing": b"", "words": b"garbage", "bytes": b"\xff\xfe", "a list": b"[]",
    "half an object": b'{"id": ',
    "an object without a price": b'{"id": "0198c0de-0000-7000-8000-00000000000a"}',
    "a price in words": b'{"id": "0198c0de-0000-7000-8000-00000000000a", "price": "\xff"}',
}  # fmt: skip


class TestACopyThatCannotBeRead:
    @pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
    def test_is_a_miss_and_is_replaced(self, lamp, garbage):
        get_redis_connection("default").set(f"catalog:{lamp}", garbage)
        assert catalog.get(lamp) is None

        put(lamp)
        assert state(lamp) == (5, 10)

    def test_is_replaced_also_when_its_versions_are_garbage(self, lamp):
        put(lamp, price=1, qty=1, version=9)
        versions = {"version": "garbage", "stock_version": "nan"}
        get_redis_connection("default").hset(f"catalog:{lamp}:parts", mapping=versions)

        put(lamp, price=5, qty=10, version=1)

        assert state(lamp) == (5, 10)


class TestAKeyOfAnotherType:
    @pytest.mark.parametrize(
        "tell",
        [
            lambda lamp: put(lamp, version=3),
            lambda lamp: catalog.refresh_stock([left(lamp, remaining=3, version=3)]),
            lambda lamp: catalog.forget(lamp, version=3),
        ],
    )
    def test_is_as_if_there_were_none_and_keeps_nobody_from_the_others(self, lamp, tell):
        redis, other = get_redis_connection("default"), new_id()
        put(other)
        redis.set(f"catalog:{lamp}:parts", "a string")
        redis.rpush(f"catalog:{lamp}", "a list")
        assert catalog.get(lamp) is None
        tell(lamp)
        put(lamp, version=4)

        assert (state(lamp), state(other)) == ((5, 10), (5, 10))


class TestRefreshProducts:
    def test_counts_the_age_of_a_price_from_when_it_was_recorded(self, lamp):
        announce(updated(lamp, price=5, qty=10, version=1), seconds_ago=60)

        assert [catalog.get(lamp).is_within(seconds) for seconds in (10, 120)] == [False, True]

    def test_takes_no_time_for_none(self, lamp):
        catalog.refresh_products([Received(updated(lamp, price=5, qty=10, version=1))])

        assert catalog.get(lamp).as_of == 0

    def test_does_not_make_older_what_has_been_confirmed_since(self, lamp):
        put(lamp, price=5, version=1)
        announce(updated(lamp, price=5, qty=10, version=2), seconds_ago=60)
        assert catalog.get(lamp).is_within(10)

        announce(updated(lamp, price=7, qty=10, version=3), seconds_ago=60)
        assert not catalog.get(lamp).is_within(10)

    @pytest.mark.parametrize(
        "news",
        [
            lambda lamp: announce(updated(lamp, price=7, qty=3, version=2)),
            lambda lamp: announce(archived(lamp, version=2)),
            lambda lamp: catalog.refresh_stock([left(lamp, remaining=3, version=2)]),
        ],
    )
    def test_drops_the_copy_when_redis_is_back_if_it_missed_the_news(
        self, lamp, request, settings, news
    ):
        put(lamp)
        there = settings.CACHES
        request.getfixturevalue("without_redis")
        news(lamp)
        settings.CACHES = there

        eventually(lambda: catalog.get(lamp) is None)


class TestRefreshStock:
    def test_takes_the_newest_of_a_batch_in_whatever_order(self, lamp):
        put(lamp)
        news = [left(lamp, remaining=10 - version, version=version) for version in (3, 4, 2)]
        catalog.refresh_stock(news)

        assert state(lamp) == (5, 6)

    @pytest.mark.parametrize(
        ("price", "seconds_ago", "is_fresh"),
        [(None, 0, False), (5, 0, True), (5, 3600, False), (6, 0, False)],
        ids=["unknown", "confirmed", "confirmed long ago", "another"],
    )
    def test_makes_an_old_price_fresh_if_it_held_a_moment_ago(
        self, lamp, price, seconds_ago, is_fresh
    ):
        decided_at = rfc3339(now_in_milliseconds() - timedelta(seconds=seconds_ago))
        put(lamp, seconds_old=60)
        news = left(lamp, remaining=9, version=2, price=price, decided_at=decided_at)
        catalog.refresh_stock([news])

        assert catalog.get(lamp).is_within(10) == is_fresh
        assert state(lamp) == (5, 9)

    @pytest.mark.parametrize("decided_at", ["nonsense", "0001-01-01T00:00:00+14:00", "", None])
    def test_confirms_nothing_where_the_time_is_nonsense(self, lamp, decided_at):
        put(lamp)
        before = catalog.get(lamp).as_of
        catalog.refresh_stock([left(lamp, remaining=9, version=2, price=5, decided_at=decided_at)])

        assert (state(lamp), catalog.get(lamp).as_of) == ((5, 9), before)

    def test_confirms_no_price_for_the_future(self, lamp):
        put(lamp)
        decided_at = "9999-01-01T00:00:00Z"
        catalog.refresh_stock([left(lamp, remaining=9, version=2, price=5, decided_at=decided_at)])

        assert catalog.get(lamp).as_of <= time.time()

    def test_has_a_price_compared_that_was_another_when_the_order_was_decided(self, lamp):
        put(lamp, version=1)
        decided = rfc3339(now_in_milliseconds())
        catalog.refresh_stock([left(lamp, remaining=9, version=3, price=7, decided_at=decided)])
        assert not catalog.get(lamp).is_within(10)

        put(lamp, price=7, version=2)
        assert catalog.get(lamp).is_within(10)
        # Of before the change, and late.
        catalog.refresh_stock([left(lamp, remaining=10, version=1, price=5, decided_at=decided)])
        assert catalog.get(lamp).is_within(10)

    def test_makes_no_copy_of_a_product_whose_price_we_do_not_know(self, lamp):
        catalog.refresh_stock([left(lamp, remaining=9, version=2)])

        assert catalog.get(lamp) is None

    def test_learns_from_a_rejection_too(self, lamp):
        put(lamp)
        refused = {"outcome": StockOutcome.REJECTED, "reason": "x"}
        catalog.refresh_stock([left(lamp, remaining=3, version=5, **refused)])

        assert state(lamp) == (5, 3)

    def test_keeps_products_apart(self, lamp):
        chair = new_id()
        put(lamp)
        put(chair)
        catalog.refresh_stock([left(chair, remaining=1, version=2)])

        assert (state(lamp), state(chair)) == ((5, 10), (5, 1))


def tell(product_id: UUID, news: tuple[str, int]) -> None:
    """Tell one piece of news; what it says follows from its version."""
    kind, version = news
    if kind == "product":
        announce(updated(product_id, price=100 + version, qty=50 - version, version=version))
    else:
        catalog.refresh_stock([left(product_id, remaining=50 - version, version=version)])


class TestNewsInAnyOrder:
    def test_ends_in_the_same_copy(self):
        history = [("stock", 2), ("product", 3), ("stock", 4), ("product", 5), ("stock", 6)]
        for order in permutations(history):
            product_id = new_id()
            tell(product_id, ("product", 1))
            for news in order:
                tell(product_id, news)

            assert state(product_id) == (105, 44), order

    @given(
        kinds=st.lists(st.sampled_from(["product", "stock"]), min_size=1, max_size=12),
        data=st.data(),
    )
    @settings(max_examples=60)
    def test_ends_in_the_same_copy_however_often_each_comes(self, kinds, data):
        product_id = new_id()
        history = [("product", 1), *((kind, n) for n, kind in enumerate(kinds, start=2))]
        tell(product_id, history[0])
        for news in data.draw(st.permutations(history + history[::2])):
            tell(product_id, news)

        last_price = max(version for kind, version in history if kind == "product")
        assert state(product_id) == (100 + last_price, 50 - len(history))


class TestForget:
    def test_leaves_no_copy_of_a_product_that_is_not_sold_any_more(self, lamp):
        put(lamp, version=1)
        announce(archived(lamp, version=2))

        assert catalog.get(lamp) is None

    @pytest.mark.parametrize(
        "older_news",
        [
            lambda lamp: put(lamp, version=1),
            lambda lamp: announce(updated(lamp, price=5, qty=10, version=2)),
            lambda lamp: catalog.refresh_stock([left(lamp, remaining=3, version=3)]),
            # Stock that is given back of what was sold before.
            lambda lamp: catalog.refresh_stock([left(lamp, remaining=3, version=9)]),
        ],
    )
    def test_is_not_undone_by_news_that_come_late(self, lamp, older_news):
        put(lamp, version=1)
        announce(archived(lamp, version=4))
        older_news(lamp)

        assert catalog.get(lamp) is None

    def test_is_undone_by_news_that_the_product_is_sold_again(self, lamp):
        put(lamp, version=1)
        announce(archived(lamp, version=2))
        announce(updated(lamp, price=7, version=3))

        assert state(lamp) == (7, 10)

    def test_keeps_what_is_newer(self, lamp):
        put(lamp, version=5)
        announce(archived(lamp, version=4))

        assert catalog.get(lamp) is not None

    def test_is_remembered_without_a_copy(self, lamp):
        announce(archived(lamp, version=4))
        put(lamp, version=3)

        assert catalog.get(lamp) is None
