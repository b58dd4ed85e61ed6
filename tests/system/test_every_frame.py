"""Every edge of an order's path, broken at every frame.

As SQLite tests its want of memory: a visit to the shop runs while a fault waits at the N-th frame
between two processes, N grows, and when a visit passes untouched, every frame has been tried. What
runs in the background sends frames as well, so which of a visit's is the N-th is not quite the same
in each run.

EVERY_FRAME=all tries all of them, which takes hours; EVERY_FRAME="orders-worker BROKER_URL hold" (a
part of what names a kind of fault) those of some kinds. Without it, a minute's worth of frames is
tried, which FAULTS_SEED chooses. pytest's --log-cli-level=INFO shows each.
"""

import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

import pytest
from shop import Shop
from visit import SEED, Visit

from tools.chaos.harness import Harness
from tools.chaos.proxy import Action, Fault, Proxy, Side

logger = logging.getLogger(__name__)

EVERY_FRAME = os.environ.get("EVERY_FRAME", "")
SHORT_SECONDS = 60
# Longer than any request has, and than a process waits for an answer before it does it again.
HOLD_SECONDS = 3.0
# What failed is left alone for a second.
BREAKER_SECONDS = 1.2

EDGES = [
    ("order-service", "BROKER_URL"),
    ("order-service", "ORDERS_DATABASE_URL"),
    ("order-service", "CACHE_URL"),
    ("order-service", "PRODUCT_API_URL"),
    ("orders-worker", "BROKER_URL"),
    ("orders-worker", "ORDERS_DATABASE_URL"),
    ("orders-worker", "CACHE_URL"),
    ("products-worker", "BROKER_URL"),
    ("products-worker", "PRODUCTS_DATABASE_URL"),
    ("products-worker", "CACHE_URL"),
    ("product-service", "PRODUCTS_DATABASE_URL"),
    ("product-service", "CACHE_URL"),
]
Edge = tuple[str, str]


@dataclass(frozen=True)
class Kind:
    """A kind of fault: where, what, and whether on connections that are there or on new ones."""

    edge: Edge
    action: Action
    side: Side
    is_new: bool

    def __str__(self) -> str:
        """Name it as EVERY_FRAME does."""
        connections = "new" if self.is_new else "old"
        return " ".join([*self.edge, self.action, self.side, connections])


KINDS = [
    Kind(edge, action, side, is_new)
    for edge in EDGES
    for action in ("cut before", "cut within", "hold", "repeat")
    for side in ("client", "server")
    for is_new in (False, True)
    # To repeat what is no message is nonsense in any protocol.
    if action != "repeat" or edge[1] == "BROKER_URL"
]


@pytest.fixture(scope="module")
def proxies(stack: Harness) -> Iterator[dict[Edge, Proxy]]:
    """A proxy on every edge, for as long as this module runs."""
    made = {edge: Proxy(stack.environment[edge[1]]) for edge in EDGES}
    processes = {process for process, _ in EDGES}

    def send_through(urls: Callable[[Edge], str | None]) -> None:
        for each in processes:
            stack.set_environment(
                each, **{edge[1]: urls(edge) for edge in EDGES if edge[0] == each}
            )
        stack.wait_ready()

    stack.wait_ready()
    send_through(lambda edge: made[edge].url)
    yield made
    send_through(lambda _edge: None)
    for proxy in made.values():
        proxy.close()


@dataclass
class Sweep:
    """Tries frames, and keeps what went wrong."""

    proxies: dict[Edge, Proxy]
    shop: Shop
    failures: list[str] = field(default_factory=list)
    reached: int = 0

    def try_frame(self, kind: Kind, frame: int) -> Fault:
        """Visit the shop with a fault waiting; all is well again afterwards."""
        proxy, started = self.proxies[kind.edge], time.monotonic()
        fault = proxy.arm(Fault(kind.action, frame, kind.side, seconds=HOLD_SECONDS))
        if kind.is_new:
            proxy.cut()
        try:
            Visit(self.shop).run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next frame is tried
            self.failures.append(f"{kind}, frame {frame}, {fault.at}: {error!r}")
        finally:
            proxy.heal()
            if kind.action == "repeat":
                # Its publisher would take every confirm for that of the message before.
                proxy.cut()
            if fault.reached.is_set():
                # Or the next visit would find the edge left alone, and pass untouched.
                time.sleep(BREAKER_SECONDS)
        self.reached += fault.reached.is_set()
        seconds = time.monotonic() - started
        logger.info("%s, frame %d of %d: %s (%.1f s)", kind, frame, fault.seen, fault.at, seconds)
        return fault

    def try_all(self) -> None:
        """Try every frame of every kind that is asked for."""
        for kind in KINDS:
            if EVERY_FRAME == "all" or EVERY_FRAME in str(kind):
                for frame in count(1):
                    if not self.try_frame(kind, frame).reached.is_set():
                        break

    def try_some(self) -> None:
        """Try frames by chance for a while."""
        dice = random.Random(SEED)
        until = time.monotonic() + SHORT_SECONDS
        # How many there were so far, at most.
        frames: dict[tuple[Edge, Side, bool], int] = {}
        while time.monotonic() < until:
            kind = dice.choice(KINDS)
            alike = (kind.edge, kind.side, kind.is_new)
            most = frames.get(alike, 3)
            frames[alike] = max(most, self.try_frame(kind, dice.randint(1, most)).seen)


class TestAnOrder:
    @pytest.mark.timeout(86_400 if EVERY_FRAME else 600)
    def test_is_stored_once_and_settled_wherever_its_path_breaks(
        self, proxies: dict[Edge, Proxy], shop: Shop
    ) -> None:
        sweep = Sweep(proxies, shop)
        if EVERY_FRAME:
            sweep.try_all()
        else:
            sweep.try_some()

        assert sweep.failures == [], f"FAULTS_SEED={SEED}"
        assert sweep.reached > 0
        shop.final_statuses()
        assert shop.ledger().differences == []
