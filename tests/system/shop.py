"""A client of the system that remembers what it was told."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import Any

import psycopg
import requests

from tests.servicekit.private_broker import eventually
from tools.ledger import Report, check_ledger

FINAL = {"CONFIRMED", "REJECTED", "CANCELLED"}


class Shop:
    """Both APIs, and the books behind them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.products = environment["PRODUCT_API_URL"]
        self.orders = environment["ORDER_API_URL"]
        self._per_thread = local()
        self.acknowledged: dict[str, dict[str, Any]] = {}
        """Every order that was answered with 201, by id, as it was answered."""
        self.refused: list[requests.Response] = []

    @property
    def http(self) -> requests.Session:
        """A session for this thread."""
        if not hasattr(self._per_thread, "session"):
            self._per_thread.session = requests.Session()
            self._per_thread.session.trust_env = False
        return self._per_thread.session

    def create_product(self, *, qty: int, price: int = 100, name: str = "Lamp") -> dict[str, Any]:
        facts = {"name": name, "price": price, "qty": qty}
        answer = self.http.post(self.products, json=facts, timeout=30)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def restock(self, product_id: str, units: int) -> dict[str, Any]:
        movement = {"delta": units, "reason": "restock"}
        url = f"{self.products}/{product_id}/stock-movements"
        answer = self.http.post(url, json=movement, timeout=30)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def product(self, product_id: str) -> dict[str, Any]:
        return self.http.get(f"{self.products}/{product_id}", timeout=30).json()

    def order(
        self, product_id: str, quantity: int = 1, *, key: str | None = None
    ) -> requests.Response:
        """Order, under an Idempotency-Key or without, and remember the outcome."""
        body = {"productId": product_id, "quantity": quantity}
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = self.http.post(self.orders, json=body, headers=headers, timeout=30)
        if answer.status_code == 201:
            self.acknowledged[answer.json()["id"]] = answer.json()
        else:
            self.refused.append(answer)
        return answer

    def order_many(self, product_id: str, count: int, *, clients: int) -> None:
        """Place `count` orders of one unit from `clients` parallel clients."""
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda _: self.order(product_id), range(count)))

    def cancel(self, order_id: str) -> requests.Response:
        return self.http.post(f"{self.orders}/{order_id}/cancel", timeout=30)

    def status(self, order_id: str) -> str:
        return self.http.get(f"{self.orders}/{order_id}", timeout=30).json()["status"]

    def final_status(self, order_id: str, *, timeout_seconds: float = 60) -> str:
        """Wait for any status but PENDING."""

        def probe() -> str | None:
            try:
                status = self.status(order_id)
            except (requests.RequestException, KeyError):
                return None
            return status if status in FINAL else None

        return eventually(probe, within_seconds=timeout_seconds)

    def final_statuses(self) -> dict[str, int]:
        """Wait for every acknowledged order, and count the outcomes."""
        counts = dict.fromkeys(FINAL, 0)
        for order_id in self.acknowledged:
            counts[self.final_status(order_id)] += 1
        return counts

    def listed(self, product_id: str) -> list[dict[str, Any]]:
        """Return all orders of a product, page by page."""
        found: list[dict[str, Any]] = []
        url: str | None = f"{self.orders}?productId={product_id}&limit=500"
        while url:
            answer = self.http.get(url, timeout=30)
            assert answer.status_code == 200, answer.text
            found += answer.json()
            url = answer.links.get("next", {}).get("url")
        return found

    def dead_letters(self, service: str, *, queue: str) -> list[dict[str, Any]]:
        """Return the messages from a queue that wait for a decision, the oldest first."""
        url = self.environment[f"{service.upper()}_DATABASE_URL"]
        with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
            return connection.execute(
                "SELECT * FROM dead_letter WHERE queue = %s AND status = 'WAITING' ORDER BY id",
                [queue],
            ).fetchall()

    def ledger(self) -> Report:
        """Check the books of both services against each other."""
        return check_ledger(self.environment, wait_seconds=60)
