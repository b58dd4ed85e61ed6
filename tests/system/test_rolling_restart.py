"""Every process is ended and started again while orders come in, and every answer is looked at."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from shop import Shop, eventually

from tools.chaos.harness import Harness

CLIENTS = 8
OURS = ["product-service", "order-service", "products-worker", "orders-worker"]
WEB = ["product-service", "order-service"]


@contextmanager
def orders_coming_in(shop: Shop, product_id: str) -> Iterator[Counter[str]]:
    """Order and look at the product all the time; count what becomes of the requests, by kind."""
    outcomes: Counter[str] = Counter()
    enough = threading.Event()

    def order_and_look() -> None:
        while not enough.is_set():
            for ask in (
                lambda: shop.order(product_id),
                lambda: shop.http.get(f"{shop.products}/{product_id}", timeout=30),
            ):
                try:
                    answer = ask()
                except requests.RequestException as error:
                    refused = "Connection refused" in str(error)
                    outcomes["refused" if refused else repr(error)] += 1
                    # Nobody is there; whoever asks all the time keeps them from coming.
                    time.sleep(0.05)
                else:
                    outcomes[str(answer.status_code)] += 1

    clients = [threading.Thread(target=order_and_look) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        eventually(lambda: outcomes["201"] > CLIENTS)
        yield outcomes
        # Until every client has been answered by what runs now.
        before = outcomes["201"]
        eventually(lambda: outcomes["201"] > before + 2 * CLIENTS)
    finally:
        enough.set()
        for client in clients:
            client.join()


def assert_books_agree(shop: Shop, product_id: str) -> None:
    assert shop.ledger().differences == []
    assert {each["id"] for each in shop.listed(product_id)} == shop.acknowledged.keys()


class TestARollingRestart:
    def test_of_every_process_shows_nobody_more_than_a_closed_door(
        self, stack: Harness, shop: Shop
    ) -> None:
        lamp = shop.create_product(qty=1_000_000)
        with orders_coming_in(shop, lamp["id"]) as outcomes:
            for name in OURS:
                stack.restart(name)

        assert outcomes.keys() <= {"201", "200", "refused"}, outcomes
        assert_books_agree(shop, lamp["id"])

    def test_of_web_workers_by_sighup_shows_nobody_anything(
        self, stack: Harness, shop: Shop
    ) -> None:
        lamp = shop.create_product(qty=1_000_000)
        with orders_coming_in(shop, lamp["id"]) as outcomes:
            for name in WEB:
                [before] = stack.children(name)
                stack.kill(name, signal.SIGHUP)
                eventually(lambda name=name, b=before: b not in stack.children(name) != [])

        assert outcomes.keys() == {"201", "200"}, outcomes
        assert_books_agree(shop, lamp["id"])
