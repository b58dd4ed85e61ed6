"""What the promises are worth when things break."""

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import pytest
import requests
from shop import Shop, eventually

from deploy.failure import DeployFailure
from deploy.native.stack import Stack

PROCESSES = [
    "postgres",
    "redis",
    "rabbitmq",
    "product-service",
    "order-service",
    "products-worker",
    "orders-worker",
]


def order_persistently(shop: Shop, product_id: str) -> str:
    """Order one unit as a patient client does, and return the id that a 201 named."""

    def attempt() -> str | None:
        try:
            answer = shop.order(product_id)
        except requests.RequestException:
            return None
        return answer.json()["id"] if answer.status_code == 201 else None

    return eventually(attempt, timeout_seconds=60)


def cancel_persistently(shop: Shop, order_id: str) -> None:
    """Cancel an order as a patient client does."""

    def attempt() -> bool:
        try:
            return shop.cancel(order_id).status_code == 200
        except requests.RequestException:
            return False

    eventually(attempt, timeout_seconds=60)


@contextmanager
def without(stack: Stack, name: str) -> Iterator[None]:
    """Take one process away for a while."""
    stack.stop_process(name)
    try:
        yield
    finally:
        stack.start_process(name)
        stack.wait_ready()


class TestKillingAProcess:
    @pytest.mark.parametrize("victim", PROCESSES)
    def test_again_and_again_changes_nothing_but_the_waiting_time(
        self, stack: Stack, shop: Shop, victim: str
    ) -> None:
        lamp = shop.create_product(qty=100_000)
        cancelled: list[str] = []
        enough = threading.Event()

        def kill_on() -> None:
            # Not by the clock: what starts slowly on a busy machine has to live for a moment.
            while not enough.wait(random.uniform(1.0, 3.0)):
                with suppress(DeployFailure, ProcessLookupError):  # between two lives just now
                    stack.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill_on)
        killer.start()
        try:
            until = time.monotonic() + 5
            while time.monotonic() < until:
                order_persistently(shop, lamp["id"])
                regretted = order_persistently(shop, lamp["id"])
                cancel_persistently(shop, regretted)
                cancelled.append(regretted)
        finally:
            enough.set()
            killer.join()
        stack.wait_ready()

        kept = len(shop.acknowledged) - len(cancelled)
        assert shop.final_statuses() == {
            "CONFIRMED": kept, "REJECTED": 0, "CANCELLED": len(cancelled),
        }  # fmt: skip
        assert shop.ledger().differences == []
        listed = {each["id"] for each in shop.listed(lamp["id"])}
        assert set(shop.acknowledged) <= listed


class TestOrdersAreAcceptedWithout:
    @pytest.mark.parametrize("absent", ["postgres", "redis", "rabbitmq", "product-service"])
    def test_one_part_of_the_system(self, stack: Stack, shop: Shop, absent: str) -> None:
        lamp = shop.create_product(qty=100)
        # The order service has heard of the product: it has been ordered before.
        shop.final_status(shop.order(lamp["id"]).json()["id"])

        with without(stack, absent):
            for _ in range(3):
                started = time.monotonic()
                answer = shop.order(lamp["id"])
                assert time.monotonic() - started < 2.0
                assert answer.status_code == 201, answer.text
                found = shop.http.get(f"{shop.orders}/{answer.json()['id']}", timeout=30)
                assert found.status_code == 200, found.text

        assert shop.final_statuses()["CONFIRMED"] == 4
        assert shop.ledger().differences == []

    @pytest.mark.parametrize("absent", ["postgres", "redis", "rabbitmq", "product-service"])
    def test_one_part_of_the_system_and_are_one_order_under_one_key(
        self, stack: Stack, shop: Shop, absent: str
    ) -> None:
        lamp = shop.create_product(qty=100)
        shop.final_status(shop.order(lamp["id"]).json()["id"])
        key = str(uuid4())
        answers = []

        with without(stack, absent):
            for _ in range(3):
                started = time.monotonic()
                answers.append(shop.order(lamp["id"], key=key))
                assert time.monotonic() - started < 2.0
        # And the same when all is well again.
        answers.append(shop.order(lamp["id"], key=key))

        assert {(answer.status_code, answer.content) for answer in answers} == {
            (201, answers[0].content)
        }
        assert shop.final_statuses()["CONFIRMED"] == 2
        assert shop.ledger().differences == []

    def test_its_workers(self, stack: Stack, shop: Shop) -> None:
        lamp = shop.create_product(qty=100)
        with without(stack, "orders-worker"), without(stack, "products-worker"):
            answer = shop.order(lamp["id"])
            assert answer.status_code == 201
            assert shop.status(answer.json()["id"]) == "PENDING"

        assert shop.final_status(answer.json()["id"]) == "CONFIRMED"
        assert shop.ledger().differences == []


class TestDyingAtTheWorstLine:
    @pytest.mark.parametrize(
        ("process", "failpoint"),
        [
            ("orders-worker", "orders.place.before_commit"),
            ("orders-worker", "orders.place.after_commit"),
            ("orders-worker", "consumer.after_answers"),
            ("orders-worker", "orders.settle.before_commit"),
            ("orders-worker", "orders.settle.after_commit"),
            ("products-worker", "products.reserve.before_commit"),
            ("products-worker", "products.reserve.after_commit"),
            ("products-worker", "consumer.after_answers"),
        ],
    )
    def test_loses_and_doubles_nothing(
        self, stack: Stack, shop: Shop, process: str, failpoint: str
    ) -> None:
        lamp = shop.create_product(qty=10)
        order = shop.order(lamp["id"], 1).json()
        shop.final_status(order["id"])

        stack.set_environment(process, FAILPOINTS=f"{failpoint}:kill")
        try:
            order = shop.order(lamp["id"], 4).json()
            # It dies of this order, comes back, and dies of it again: once only where the order,
            # announced before the death, is settled before it comes back to be announced again.
            deaths = 1 if failpoint == "consumer.after_answers" else 2
            lives: set[int] = set()
            eventually(lambda: len(self._live_on(stack, process, lives)) > deaths)
        finally:
            stack.set_environment(process, FAILPOINTS=None)
        stack.wait_ready()

        assert shop.final_status(order["id"]) == "CONFIRMED"
        eventually(lambda: shop.product(lamp["id"])["qty"] == 5)
        assert shop.ledger().differences == []

    def test_gives_back_the_stock_of_a_cancelled_order_once(self, stack: Stack, shop: Shop) -> None:
        lamp = shop.create_product(qty=10)
        order = shop.order(lamp["id"], 4).json()
        assert shop.final_status(order["id"]) == "CONFIRMED"

        failpoint = "products.release.before_commit"
        stack.set_environment("products-worker", FAILPOINTS=f"{failpoint}:kill")
        try:
            shop.cancel(order["id"])
            lives: set[int] = set()
            eventually(lambda: len(self._live_on(stack, "products-worker", lives)) > 2)
        finally:
            stack.set_environment("products-worker", FAILPOINTS=None)
        stack.wait_ready()

        eventually(lambda: shop.product(lamp["id"])["qty"] == 10)
        assert shop.ledger().differences == []

    @staticmethod
    def _live_on(stack: Stack, process: str, lives: set[int]) -> set[int]:
        """Return the process ids that were seen, the present one included."""
        with suppress(DeployFailure):  # it is between two lives just now
            lives.add(stack.pid(process))
        return lives
