"""A client that orders at a steady rate whatever happens, and books every answer."""

import itertools
import json
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from deploy.failure import DeployFailure

#: Longer than any answer may take, so that a slow one is seen as what it is.
_TIMEOUT_SECONDS = 10
# As many requests can wait at a time: as if each took this long.
_WAITING_SECONDS = 2.0
# Requests that are later than this are left out: the generator must not make a burst of them.
_LATE_SECONDS = 1.0
_PLENTY = 2_000_000_000
_RETRY_PAUSES = (0.1, 0.3, 1.0)
#: In a 503: nothing of the order is left.
_REFUSALS = {"not_accepted", "overloaded"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one request; the status is 0 where nothing came."""

    service: str
    request: str
    seconds: float
    was_sent: bool
    status: int = 0
    body: Any = None

    @property
    def outcome(self) -> str:
        """Return `accepted`, `refused` (it left nothing behind) or `unknown`."""
        if self.status in {200, 201}:
            return "accepted"
        if not self.was_sent or 400 <= self.status < 500:
            return "refused"
        code = self.body.get("code") if isinstance(self.body, dict) else None
        return "refused" if self.status == 503 and code in _REFUSALS else "unknown"


@dataclass(eq=False, kw_only=True)
class Order:
    """Something to order, and what was answered. No other order is of the same quantity."""

    product: str
    quantity: int
    key: str | None
    placed: list[Answer] = field(default_factory=list)
    cancelled: list[Answer] = field(default_factory=list)
    read: list[Answer] = field(default_factory=list)

    @property
    def accepted(self) -> dict[str, Any] | None:
        """The order as the first 201 has it."""
        return next((each.body for each in self.placed if each.outcome == "accepted"), None)


class _OfThread(threading.local):
    """What a thread has for itself; its connections are closed when it ends."""

    def __init__(self) -> None:
        self.pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT_SECONDS)


class Http:
    """Both APIs, over connections that each thread keeps open."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._roots = {
            "product-service": environment["PRODUCT_API_URL"].removesuffix("/products"),
            "order-service": environment["ORDER_API_URL"].removesuffix("/orders"),
        }
        self._of_thread = _OfThread()
        self.answers: list[Answer] = []

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and book the answer, whatever it is."""
        service = "product-service" if path.startswith("/products") else "order-service"
        started, was_sent, status, answered = time.monotonic(), True, 0, None
        url = f"{self._roots[service]}{path}"
        try:
            response = self._of_thread.pool.request(method, url, json=body, headers=headers)
            answered, status = json.loads(response.data or b"null"), response.status
        except (NewConnectionError, ConnectTimeoutError):
            was_sent = False
        except (HTTPError, ValueError):
            pass  # it ended in the middle, or came too late
        answer = Answer(
            service=service,
            request=f"{method} {path.partition('?')[0]}",
            seconds=time.monotonic() - started,
            was_sent=was_sent,
            status=status,
            body=answered,
        )
        self.answers.append(answer)
        return answer


class Load:
    """Orders for as long as the context is open; its products are nobody else's.

    Half of the orders are plain, the others have an `Idempotency-Key`: some of these are sent again
    until the outcome is known, some three times at once. Some are cancelled, read or listed
    afterwards; one product in four runs out and is restocked. The choice depends on the seed alone.
    """

    def __init__(self, environment: Mapping[str, str], *, rate: float, seed: str) -> None:
        self.orders: list[Order] = []
        self.restocks: defaultdict[str, list[str]] = defaultdict(list)
        """Of each attempt to restock under a key, the outcome."""
        self.http = Http(environment)
        self._rate, self._seed = rate, seed
        self._plan = self._planned()
        self._plan_lock = threading.Lock()
        self._recent: deque[Order] = deque(maxlen=200)
        self._numbers = itertools.count(1)
        self._over = threading.Event()
        self._started = 0.0
        threads = int(rate * _WAITING_SECONDS)
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        self.seconds = 0.0

    def __enter__(self) -> Self:
        """Create the products, and begin."""
        self.plentiful = [self._create_product(_PLENTY) for _ in range(3)]
        self.scarce = [self._create_product(int(50 * self._rate))]
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send no more, and wait for what was sent."""
        self._over.set()
        self.seconds = time.monotonic() - self._started
        for thread in self._threads:
            thread.join()

    def confirm_one(self, *, timeout_seconds: float) -> bool:
        """Order until an order is accepted and confirmed; tell whether one was in time."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            order = self._new_order(self.plentiful[0], None)
            self._place(order)
            while order.accepted is not None and time.monotonic() < deadline:
                answer = self.http.ask("GET", f"/orders/{order.accepted['id']}?wait=1")
                if answer.status == 200 and answer.body["status"] == "CONFIRMED":
                    return True
                time.sleep(0.05)
            time.sleep(0.05)
        return False

    def _create_product(self, qty: int) -> str:
        answer = self.http.ask("POST", "/products", {"name": "Chaos", "price": 100, "qty": qty})
        if answer.status != 201:
            raise DeployFailure(f"No product could be created to order: {answer.body}")
        return str(answer.body["id"])

    def _new_order(self, product: str, key: str | None) -> Order:
        number = next(self._numbers)
        order = Order(product=product, quantity=number, key=key and f"{product}-{number}-{key}")
        self.orders.append(order)
        return order

    def _planned(self) -> Iterator[tuple[float, Order, str, str]]:
        """Yield when to send what, and what to do afterwards."""
        chance, due = random.Random(self._seed), 0.0
        manners = ["plain"] * 8 + ["retried"] * 5 + ["at once"]
        sequels = ["cancel", "cancel older", "read", "list", "restock"] + [""] * 15
        while True:
            product = chance.choice([*self.plentiful, *self.scarce])
            manner, sequel = chance.choice(manners), chance.choice(sequels)
            order = self._new_order(product, None if manner == "plain" else self._seed)
            copies = 3 if manner == "at once" else 1
            for copy in range(copies):
                yield due, order, manner, "" if copy else sequel
            due += copies / self._rate

    def _run(self) -> None:
        while not self._over.is_set():
            with self._plan_lock:
                due, order, manner, sequel = next(self._plan)
            early = self._started + due - time.monotonic()
            if early < -_LATE_SECONDS or (early > 0 and self._over.wait(early)):
                continue
            self._place(order)
            for pause in _RETRY_PAUSES if manner == "retried" else ():
                if order.placed[-1].status in {201, 400} or self._over.wait(pause):
                    break
                self._place(order)
            if order.accepted is not None:
                self._recent.append(order)
                self._go_on(order, sequel)

    def _place(self, order: Order) -> None:
        body = {"productId": order.product, "quantity": order.quantity}
        headers = {"Idempotency-Key": order.key} if order.key else {}
        order.placed.append(self.http.ask("POST", "/orders", body, headers))

    def _go_on(self, order: Order, sequel: str) -> None:
        if sequel == "cancel older":
            order = self._recent[0]
        path = f"/orders/{order.accepted['id']}" if order.accepted else ""
        if sequel.startswith("cancel"):
            order.cancelled.append(self.http.ask("POST", f"{path}/cancel"))
        elif sequel == "read":
            order.read.append(self.http.ask("GET", path))
        elif sequel == "list":
            self.http.ask("GET", f"/orders?productId={order.product}")
        elif sequel == "restock":
            self._restock(order)

    def _restock(self, order: Order) -> None:
        path = f"/products/{self.scarce[0]}/stock-movements"
        body = {"delta": int(10 * self._rate), "reason": "restock"}
        key = f"{self.scarce[0]}-restock-{order.quantity}"
        for pause in (0, *_RETRY_PAUSES):
            time.sleep(pause)
            answer = self.http.ask("POST", path, body, {"Idempotency-Key": key})
            self.restocks[key].append(answer.outcome)
            if answer.outcome == "accepted":
                break
