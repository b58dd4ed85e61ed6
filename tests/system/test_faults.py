"""What the promises are worth when things break."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
import redis
import requests
from shop import Shop, eventually

from tools.chaos.harness import Harness


@contextmanager
def without(stack: Harness, name: str) -> Iterator[None]:
    """Take one process away for a while."""
    stack.stop_process(name)
    try:
        yield
    finally:
        stack.start_process(name)
        stack.wait_ready()


class TestOrdersAreAcceptedWithout:
    @pytest.mark.parametrize("absent", ["postgres", "redis", "rabbitmq", "product-service"])
    def test_one_part_of_the_system_and_are_one_order_under_one_key(
        self, stack: Harness, shop: Shop, absent: str
    ) -> None:
        lamp = shop.create_product(qty=100)
        # The order service has heard of the product: it has been ordered before.
        shop.final_status(shop.order(lamp["id"]).json()["id"])

        key, keyed = str(uuid4()), []

        def order(key: str | None) -> requests.Response:
            started = time.monotonic()
            answer = shop.order(lamp["id"], key=key)
            assert time.monotonic() - started < 2.0
            assert answer.status_code == 201, answer.text
            return answer

        with without(stack, absent):
            # Under a key first: nobody has noticed yet that something is away.
            keyed.append(order(key))
            for _ in range(3):
                found = shop.http.get(f"{shop.orders}/{order(None).json()['id']}", timeout=30)
                assert found.status_code == 200, found.text
                keyed.append(order(key))
        # And the same when all is well again.
        keyed.append(order(key))

        assert {answer.content for answer in keyed} == {keyed[0].content}
        assert shop.final_statuses()["CONFIRMED"] == 5
        assert shop.ledger().differences == []

    def test_its_workers(self, stack: Harness, shop: Shop) -> None:
        lamp = shop.create_product(qty=100)
        with without(stack, "orders-worker"), without(stack, "products-worker"):
            answer = shop.order(lamp["id"])
            assert answer.status_code == 201
            assert shop.status(answer.json()["id"]) == "PENDING"

        assert shop.final_status(answer.json()["id"]) == "CONFIRMED"
        assert shop.ledger().differences == []


class TestAFrozenDatabase:
    def test_is_waited_for_by_living_workers_that_go_on_by_themselves(
        self, stack: Harness, shop: Shop
    ) -> None:
        lamp = shop.create_product(qty=100)
        shop.final_status(shop.order(lamp["id"]).json()["id"])
        server = [stack.pid("postgres"), *stack.children("postgres")]
        for pid in server:
            os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                started = time.monotonic()
                assert shop.order(lamp["id"]).status_code == 201
                assert time.monotonic() - started < 2.0
            # Nobody waits without an end for the answer to what was asked before.
            log = stack.log_path("orders-worker")
            eventually(lambda: "orders.persist: holding" in log.read_text())
            stack.wait_ready("orders-worker", "products-worker")
        finally:
            for pid in server:
                os.kill(pid, signal.SIGCONT)

        assert shop.final_statuses()["CONFIRMED"] == 4
        assert shop.ledger().differences == []


class TestWhatTheCachesMissed:
    """The products worker is away, which tells the order service of changes."""

    def test_refuses_nothing_that_is_there(self, stack: Harness, shop: Shop) -> None:
        lamp = shop.create_product(qty=1)
        shop.final_status(shop.order(lamp["id"]).json()["id"])
        eventually(lambda: shop.product(lamp["id"])["qty"] == 0)
        assert shop.order(lamp["id"]).json()["code"] == "insufficient_stock"

        keys = [f"product:{lamp['id']}", f"product:{lamp['id']}:version"]
        with (
            without(stack, "products-worker"),
            redis.Redis.from_url(shop.environment["CACHE_URL"]) as cache,
        ):
            before = dict(zip(keys, cache.mget(keys), strict=True))
            shop.restock(lamp["id"], 1)
            # The restock is in the database, and its write to the cache was lost.
            cache.mset(before)
            answer = shop.order(lamp["id"])
            assert answer.status_code == 201, answer.text
        assert shop.final_status(answer.json()["id"]) == "CONFIRMED"
        assert shop.ledger().differences == []

    def test_sells_at_no_price_that_is_older_than_allowed(self, stack: Harness, shop: Shop) -> None:
        lamp = shop.create_product(qty=100_000, price=100)
        assert shop.order(lamp["id"]).json()["totalPrice"] == 100

        with without(stack, "products-worker"):
            shop.http.patch(f"{shop.products}/{lamp['id']}", json={"price": 7}, timeout=5)
            allowed = float(shop.environment["PRICE_MAX_AGE_SECONDS"])
            eventually(
                lambda: shop.order(lamp["id"]).json()["totalPrice"] == 7,
                within_seconds=allowed + 20,
            )
        shop.final_statuses()
        assert shop.ledger().differences == []
