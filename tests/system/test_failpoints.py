"""Processes that die at the worst line: at every failpoint, and at one failpoint after another.

What a proxy between two processes cannot reach has a failpoint in the code. Each kills once, the
next one as soon as the last has killed, while the system still comes back from that; visits to the
shop go on meanwhile. With EVERY_PAIR=1 every failpoint comes after every other (an hour or two);
without, each comes once, in an order that FAULTS_SEED chooses.
"""

import os
import random
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import redis
import requests
from kombu import Connection
from shop import Shop, eventually
from visit import SEED, Visit

from deploy.settings import ROOT
from tools.chaos.harness import Harness

EVERY_PAIR = os.environ.get("EVERY_PAIR") == "1"

_OF_ANY_WORKER = (
    "consumer.after_answers",
    "outbox.after_confirm",
    "dead_letters.collect.before_commit",
    "dead_letters.collect.after_commit",
    "dead_letters.replay.after_confirm",
)
REACHED_BY = {
    "product-service": ("products.fill.before_cache",),
    "order-service": (
        "orders.intake.after_confirm",
        "orders.place.before_commit",
        "orders.place.after_commit",
    ),
    "products-worker": (
        "products.reserve.before_commit",
        "products.reserve.after_commit",
        "products.release.before_commit",
        "products.release.after_commit",
        *_OF_ANY_WORKER,
    ),
    "orders-worker": (
        "orders.place.before_commit",
        "orders.place.after_commit",
        "orders.settle.before_commit",
        "orders.settle.after_commit",
        *_OF_ANY_WORKER,
    ),
}
QUEUES = {"products-worker": "product_order_queue", "orders-worker": "order_stock_queue"}
Place = tuple[str, str]
PLACES: list[Place] = [(process, name) for process, names in REACHED_BY.items() for name in names]


class TestTheListOfFailpoints:
    def test_is_that_of_the_code(self) -> None:
        packages = ("servicekit", "products_project", "orders_project", "celery_workers")
        sources = chain.from_iterable((ROOT / each).rglob("*.py") for each in packages)
        in_the_code = {
            name
            for each in sources
            for name in re.findall(r' failpoint\("(.+)"\)', each.read_text())
        }
        assert in_the_code == {name for _, name in PLACES}


def each_after_each(places: Sequence[Place]) -> Iterator[Place]:
    """Return an order in which each comes right after each: a de Bruijn sequence."""
    for position, first in enumerate(places):
        yield first
        for second in places[position + 1 :]:
            yield from (first, second)
    yield places[0]


@pytest.fixture
def armed(stack: Harness, tmp_path: Path) -> Iterator[Path]:
    """A directory in which a file `process-failpoint` kills that process there, once."""
    for process, names in REACHED_BY.items():
        actions = ",".join(f"{name}:kill={tmp_path / process}-{name}" for name in names)
        stack.set_environment(process, FAILPOINTS=actions)
    stack.wait_ready()
    yield tmp_path
    for process in REACHED_BY:
        stack.set_environment(process, FAILPOINTS=None)
    stack.wait_ready()


class Deaths(threading.Thread):
    """Has processes die at one place after the other, each as soon as the last is dead."""

    def __init__(self, directory: Path, places: Sequence[Place]) -> None:
        super().__init__(daemon=True)
        self.place: Place = places[0]
        self.survived: list[Place] = []
        self._directory = directory
        self._places = places

    def run(self) -> None:
        """Go from place to place; note those that nobody comes to."""
        for place in self._places:
            self.place = place
            armed = self._directory / "-".join(place)
            armed.touch()
            try:
                eventually(lambda armed=armed: not armed.exists(), within_seconds=180)
            except AssertionError:
                armed.unlink(missing_ok=True)
                self.survived.append(place)


def dead_letter_and_replay(shop: Shop, process: str) -> None:
    """Send a message that cannot be read, see it dead-lettered, and have it sent again as it is."""
    queue, body = QUEUES[process], f"poison {uuid4()}".encode()
    with Connection(shop.environment["BROKER_URL"]) as connection:
        channel = connection.channel()
        channel.basic_publish(
            channel.prepare_message(body, properties={}), exchange="", routing_key=queue
        )
    service = process.removesuffix("-worker")
    url = shop.environment[f"{service.upper()}_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:

        def change(status: str, *, to: str) -> bool:
            statement = "UPDATE dead_letter SET status = %s WHERE body = %s AND status = %s"
            return connection.execute(statement, [to, body, status]).rowcount == 1

        eventually(lambda: change("WAITING", to="REPLAY_REQUESTED"))
        # Dead-lettered again, because it cannot be read this time either.
        eventually(lambda: change("WAITING", to="DISCARDED"))


def look_at_what_is_not_cached(shop: Shop, product_id: str) -> None:
    """Have the product service fill its cache."""
    with redis.Redis.from_url(shop.environment["CACHE_URL"]) as cache:
        cache.delete(f"product:{product_id}")
    with suppress(requests.RequestException):
        shop.product(product_id)


class TestDyingAtTheWorstLine:
    @pytest.mark.timeout(86_400 if EVERY_PAIR else 1_800)
    def test_loses_and_doubles_nothing(self, stack: Harness, shop: Shop, armed: Path) -> None:
        places = random.Random(SEED).sample(PLACES, k=len(PLACES))
        deaths = Deaths(armed, list(each_after_each(places)) if EVERY_PAIR else places)
        deaths.start()
        while deaths.is_alive():
            (process, name), visit = deaths.place, Visit(shop, is_answered=False)
            visit.run()
            if name.startswith("dead_letters."):
                dead_letter_and_replay(shop, process)
            if process == "product-service":
                look_at_what_is_not_cached(shop, visit.product_id)

        assert deaths.survived == [], f"FAULTS_SEED={SEED}"
        stack.wait_ready()
        Visit(shop).run()
        shop.final_statuses()
        assert shop.ledger().differences == []
