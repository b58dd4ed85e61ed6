"""`product:{id}` in Redis: fast when it is there, never wrong, never needed."""

import time

import msgspec
import pytest
from django.test import Client
from django_redis import get_redis_connection

from products_project.products import cache, selectors, services
from products_project.products.models import Product
from servicekit.identifiers import new_id
from tests.servicekit.private_broker import eventually

pytestmark = pytest.mark.django_db


@pytest.fixture
def redis():
    return get_redis_connection("default")


def price_by_http(client: Client, lamp: Product) -> int:
    return client.get(f"/products/{lamp.id}").json()["price"]


class TestCachedProduct:
    def test_is_there_as_soon_as_the_product_is(self, redis, lamp):
        cached = msgspec.json.decode(redis.get(f"product:{lamp.id}"))

        assert (cached["id"], cached["price"]) == (str(lamp.id), 190_000)

    def test_is_the_answer_to_the_byte(self, client, redis, lamp):
        assert client.get(f"/products/{lamp.id}").content == redis.get(f"product:{lamp.id}")

    def test_spares_the_database_the_question(self, client, lamp, django_assert_num_queries):
        with django_assert_num_queries(0):
            assert price_by_http(client, lamp) == 190_000

    def test_is_what_is_answered_and_not_the_row(self, client, redis, lamp):
        other = redis.get(f"product:{lamp.id}").replace(b"190000", b"42")
        redis.set(f"product:{lamp.id}", other)

        assert price_by_http(client, lamp) == 42

    def test_does_not_last_for_ever(self, redis, lamp):
        assert 0 < redis.ttl(f"product:{lamp.id}") <= cache.TTL_SECONDS

    @pytest.mark.parametrize("lost", ["product:{id}", "product:{id}:version"])
    def test_is_filled_again_when_part_of_it_is_lost(self, client, redis, lamp, lost):
        redis.delete(lost.format(id=lamp.id))

        assert price_by_http(client, lamp) == 190_000
        assert cache.get(lamp.id).version == 1

    def test_is_rewritten_by_a_change(self, client, lamp):
        services.update_product(lamp.id, price=1)

        assert price_by_http(client, lamp) == 1

    def test_of_no_product_is_not_stored(self, client):
        stranger = new_id()
        client.get(f"/products/{stranger}")

        assert cache.get(stranger) is None


class TestAReaderThatStallsBetweenItsReadAndItsWrite:
    """It has read version 1 and not cached it yet; meanwhile version 2 is committed and cached."""

    @pytest.fixture
    def stalled_reader(self, client, lamp, redis, monkeypatch):
        def read() -> None:
            redis.delete(f"product:{lamp.id}", f"product:{lamp.id}:version")

            def stall(_name: str) -> None:
                services.update_product(lamp.id, price=180_000)

            monkeypatch.setattr(selectors, "failpoint", stall)
            price_by_http(client, lamp)

        return read

    def test_does_not_put_the_old_price_over_the_new(self, client, lamp, stalled_reader):
        stalled_reader()

        assert cache.get(lamp.id).version == 2
        assert price_by_http(client, lamp) == 180_000

    def test_would_with_a_plain_set(self, client, lamp, redis, stalled_reader, monkeypatch):
        # The negative control: proves that the reader does stall where it hurts.
        def plain_set(products: list[Product], **_: object) -> None:
            for product in products:
                redis.set(f"product:{product.id}", cache.rendered(product).value, ex=60)
                redis.set(f"product:{product.id}:version", product.version, ex=60)

        monkeypatch.setattr(cache, "store", plain_set)
        stalled_reader()

        assert price_by_http(client, lamp) == 190_000

    @pytest.mark.parametrize(("sees_its_age", "price"), [(True, 180_000), (False, 190_000)])
    def test_does_not_when_it_outlasts_the_new_one_but_would_with_a_ttl_from_the_write(
        self, request, monkeypatch, sees_its_age, price
    ):
        client, lamp, redis = map(request.getfixturevalue, ("client", "lamp", "redis"))
        monkeypatch.setattr(cache._products, "_ttl_seconds", 1)
        monkeypatch.setattr("products_project.products.versioned_cache.CLOCK_ALLOWANCE_SECONDS", 0)
        if not sees_its_age:
            # The negative control.
            monkeypatch.setattr(
                "products_project.products.versioned_cache.expiry_ms",
                lambda *_: int(time.time() + 60) * 1000,
            )
        redis.delete(f"product:{lamp.id}", f"product:{lamp.id}:version")

        def stall(_name: str) -> None:
            services.update_product(lamp.id, price=180_000)
            redis.delete(f"product:{lamp.id}")
            eventually(lambda: not redis.exists(f"product:{lamp.id}:version"))

        monkeypatch.setattr(selectors, "failpoint", stall)
        price_by_http(client, lamp)
        monkeypatch.setattr(selectors, "failpoint", lambda _name: None)

        assert price_by_http(client, lamp) == price


class TestACallerThatTakesNoCachedAnswer:
    """`Cache-Control: no-cache`, for example the order service before it refuses an order."""

    @pytest.fixture
    def ask(self, client, redis, lamp):
        # A restock whose cache write was lost.
        stale = redis.get(f"product:{lamp.id}")
        services.move_stock(product_id=lamp.id, delta=5, reason="restock")
        redis.set(f"product:{lamp.id}", stale)
        redis.set(f"product:{lamp.id}:version", 1)
        return lambda **headers: client.get(f"/products/{lamp.id}", headers=headers)

    @pytest.mark.parametrize("header", ["no-cache", "max-age=0, No-Cache"])
    def test_is_told_what_is_so_and_has_the_cache_told(self, ask, header):
        assert ask().json()["qty"] == 10

        answer = ask(cache_control=header)
        assert (answer.json()["qty"], answer["ETag"]) == (15, '"2"')
        assert ask().json()["qty"] == 15

    def test_is_still_told_that_it_has_it(self, ask):
        assert ask(cache_control="no-cache", if_none_match='"2"').status_code == 304

    def test_learns_that_a_product_is_archived(self, client, redis, lamp, ask):
        client.delete(f"/products/{lamp.id}")
        redis.set(f"product:{lamp.id}", b"{}")
        redis.set(f"product:{lamp.id}:version", 1)

        assert ask(cache_control="no-cache").json()["code"] == "product_archived"
        assert ask().status_code == 404


@pytest.mark.usefixtures("without_redis")
class TestWithoutRedis:
    def test_products_are_created_read_changed_and_listed(self, client, lamp):
        services.update_product(lamp.id, price=5)

        assert price_by_http(client, lamp) == 5
        assert [product["id"] for product in client.get("/products").json()] == [str(lamp.id)]

    def test_an_answer_costs_milliseconds_more(self, client, lamp):
        started = time.monotonic()
        for _ in range(20):
            price_by_http(client, lamp)

        assert time.monotonic() - started < 2
