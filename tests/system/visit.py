"""A visit to the shop while something breaks, and what the books have to say afterwards."""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

import psycopg
import requests
from shop import Shop, eventually

SEED = int(os.environ.get("FAULTS_SEED", random.randrange(1_000_000)))
"""What chooses among faults where there are more than a run has time for."""

# The watchdog announces again what nobody has answered for 30 seconds.
FINAL_SECONDS = 120
STOCK = 100


@dataclass
class Visit:
    """A new product, ordered plainly, with a key, and once more to be cancelled."""

    shop: Shop
    is_answered: bool = True
    """Whether every request has to be answered: not if a web process may die of it."""
    product_id: str = ""
    accepted: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    unanswered: int = 0

    def run(self) -> None:
        """Visit, wait until all is final, and look at the books of the product."""
        lamp = {"name": "Lamp", "price": 100, "qty": STOCK}
        answer = self.ask(lambda: self.shop.http.post(self.shop.products, json=lamp, timeout=5))
        self.product_id = answer.json()["id"]
        self.order(None)
        self.order(str(uuid4()))
        regretted = self.order(None)
        self.wait_until_settled(cancelled=set())
        self.ask(lambda: self.shop.cancel(regretted), 200)
        self.wait_until_settled(cancelled={regretted})

    def ask(self, attempt: Callable[[], requests.Response], wanted: int = 201) -> requests.Response:
        """Ask as a patient client does, who accepts no answer but what was wanted and 503."""

        def ask() -> requests.Response | None:
            try:
                answer = attempt()
            except requests.RequestException:
                assert not self.is_answered
                self.unanswered += 1
                return None
            assert answer.status_code in (wanted, 503), (answer.status_code, answer.text)
            if answer.status_code == wanted:
                return answer
            self.unknown.add(answer.json().get("orderId", ""))
            return None

        return eventually(ask)

    def order(self, key: str | None) -> str:
        """Order one unit, and return the id that a 201 named."""
        order_id = self.ask(lambda: self.shop.order(self.product_id, key=key)).json()["id"]
        self.accepted.add(order_id)
        return order_id

    def wait_until_settled(self, *, cancelled: set[str]) -> None:
        """Wait until the books of the product are as they have to be."""
        deadline = time.monotonic() + FINAL_SECONDS
        while wrong := self.wrong(cancelled):
            assert time.monotonic() < deadline, f"after {FINAL_SECONDS} s, {wrong}"
            time.sleep(0.02)

    def wrong(self, cancelled: set[str]) -> str:
        """Say what is wrong with the books, straight from the databases; nothing if all is well."""
        stored = self.look_up("orders", 'SELECT id::text, status FROM "order" WHERE product_id = ')
        decided = self.look_up(
            "products", "SELECT order_id, outcome FROM reservation WHERE product_id = "
        )
        left = self.look_up("products", "SELECT id::text, qty FROM product WHERE id = ")
        unexpected = stored.keys() - self.accepted - self.unknown
        kept = (self.accepted | stored.keys()) - cancelled
        statuses = dict.fromkeys(kept, "CONFIRMED") | dict.fromkeys(cancelled, "CANCELLED")
        outcomes = dict.fromkeys(kept, "RESERVED") | dict.fromkeys(cancelled, "RELEASED")
        books = (stored, decided, left)
        expected = (statuses, outcomes, {self.product_id: STOCK - len(kept)})
        if books == expected and len(unexpected) <= self.unanswered:
            return ""
        return f"stored, decided, left are {books}, and accepted {self.accepted}"

    def look_up(self, service: str, query: str) -> dict[str, object]:
        """Return two columns about the product, straight from a database."""
        with psycopg.connect(
            self.shop.environment[f"{service.upper()}_DATABASE_URL"]
        ) as connection:
            return dict(connection.execute(query + "%s", [self.product_id]).fetchall())
