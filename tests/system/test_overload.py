"""More than the system can take: it says so, and everything that it has taken is kept."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from shop import Shop

from tools.chaos.harness import Harness

# Of the web process; ten clients come for each, all the time.
CONNECTIONS = 40
RSS_LIMIT_BYTES = 250 * 1024 * 1024


class Crowd:
    """Clients that order at the same time, each of them one unit after the other."""

    def __init__(self, shop: Shop, product_id: str) -> None:
        url = urlsplit(shop.orders)
        self._address = (url.hostname, url.port)
        body = json.dumps({"productId": product_id, "quantity": 1})
        head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._request = (head + body).encode()
        self.outcomes: Counter[tuple[int, str]] = Counter()
        self.accepted: set[str] = set()
        self.unknown: set[str] = set()

    def come(self, *, clients: int, orders_each: int) -> None:
        async def all_at_once() -> None:
            await asyncio.gather(*(self._order(orders_each) for _ in range(clients)))

        asyncio.run(all_at_once())

    async def _order(self, count: int) -> None:
        for _ in range(count):
            try:
                answer = await self._ask()
            except ConnectionError:
                self.outcomes[0, "connection"] += 1
                continue
            head, _, body = answer.partition(b"\r\n\r\n")
            status, document = int(head.split()[1]), json.loads(body)
            self.outcomes[status, document.get("code", "")] += 1
            if status == 201:
                self.accepted.add(document["id"])
            elif status == 503:
                assert b"\r\nRetry-After: " in head, head
                self.unknown |= {document["orderId"]} if "orderId" in document else set()

    async def _ask(self) -> bytes:
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            writer.write(self._request)
            answer = await reader.read()
            if not answer:
                # It was taken for idle, before its request had come, to make room for another.
                raise ConnectionResetError
            return answer
        finally:
            writer.close()


@pytest.fixture
def small_door(stack: Harness, shop: Shop) -> Iterator[Shop]:
    """A shop with an order service with so few connections that any machine can overload it."""
    stack.set_environment("order-service", WEB_CONNECTIONS=str(CONNECTIONS))
    stack.wait_ready()
    yield shop
    stack.set_environment("order-service", WEB_CONNECTIONS=None)


def assert_kept(crowd: Crowd, shop: Shop, product_id: str) -> None:
    """Everything that was accepted is stored, and nothing that was refused."""
    assert shop.ledger().differences == []
    stored = {each["id"] for each in shop.listed(product_id)}
    assert crowd.accepted - stored == set()
    # A connection that broke has told nobody what became of its order.
    broken = crowd.outcomes[0, "connection"]
    assert len(stored - crowd.accepted - crowd.unknown) <= broken


class TestTenTimesWhatItCanTake:
    def test_is_answered_or_refused_and_nothing_stays_of_it(
        self, stack: Harness, small_door: Shop
    ) -> None:
        shop = small_door
        lamp = shop.create_product(qty=1_000_000)
        crowd = Crowd(shop, lamp["id"])
        lives: Counter[int] = Counter()
        enough = threading.Event()

        def look_whether_it_lives() -> None:
            url = shop.orders.replace("/orders", "/health/live")
            while not enough.is_set():
                # A connection that is idle may be ended for another one, this one too.
                with suppress(requests.ConnectionError):
                    lives[requests.get(url, timeout=60).status_code] += 1

        looking = threading.Thread(target=look_whether_it_lives)
        looking.start()
        try:
            crowd.come(clients=10 * CONNECTIONS, orders_each=10)
        finally:
            enough.set()
            looking.join()
        [worker] = stack.children("order-service")
        resident = int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096

        # Whether somebody waited too long for a place depends on the machine.
        assert crowd.outcomes[201, ""] > 0
        assert crowd.outcomes.keys() <= {
            (201, ""), (503, "overloaded"), (503, "not_accepted"), (503, "outcome_unknown"),
            (0, "connection"),
        }, crowd.outcomes  # fmt: skip
        assert lives.keys() == {200}
        assert resident < RSS_LIMIT_BYTES
        order = shop.order(lamp["id"])
        assert shop.final_status(order.json()["id"]) == "CONFIRMED"
        crowd.accepted |= shop.acknowledged.keys()
        assert_kept(crowd, shop, lamp["id"])


class TestABacklog:
    def test_of_accepted_orders_is_worked_off_without_one_lost(
        self, stack: Harness, shop: Shop
    ) -> None:
        lamp = shop.create_product(qty=1_000_000)
        crowd = Crowd(shop, lamp["id"])
        workers = ("orders-worker", "products-worker")
        for name in workers:
            stack.stop_process(name)

        crowd.come(clients=30, orders_each=100)

        assert crowd.outcomes == {(201, ""): 3000}
        for name in workers:
            stack.start_process(name)
        assert_kept(crowd, shop, lamp["id"])
