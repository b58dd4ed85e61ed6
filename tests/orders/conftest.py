"""What the tests of the order service share: a product service to ask, a broker of their own."""

from tests import own_servers

own_servers.provide("orders")

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID

import msgspec
import pytest

from orders_project.orders import services
from orders_project.orders.api import views
from orders_project.orders.commands import AcceptedOrder, PersistOrders
from orders_project.orders.models import Order
from orders_project.orders.placement import intake as placement
from orders_project.orders.placement.durability import Outcome
from orders_project.orders.placement.intake import Intake
from servicekit.breaker import Breaker
from servicekit.identifiers import new_id
from tests.orders.ordering import an_order
from tests.servicekit.private_broker import VirtualHost, unused_port

Commit = Callable[[Sequence[AcceptedOrder]], Outcome]


class FakeProductService:
    """Answers `GET /products/{id}` over HTTP as the product service does."""

    def __init__(self) -> None:
        self.products: dict[UUID, dict[str, object]] = {}
        self.versions: dict[UUID, int] = {}
        self.asked: list[UUID] = []
        self.headers: list[Mapping[str, str]] = []
        self.is_broken = False
        self.details: list[dict[str, str]] = []
        self.answer_instead: bytes | None = None
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/health/live":
                    self.send_response(500 if fake.is_broken else 200)
                    self.end_headers()
                elif self.path == "/health/ready?details":
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(msgspec.json.encode({"details": fake.details}))
                else:
                    fake._answer(self)

            def log_message(self, *_arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02])
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/products"

    def add(self, *, price: int = 190_000, qty: int = 100, version: int = 1) -> UUID:
        product_id = new_id()
        self.change(product_id, price=price, qty=qty, version=version)
        return product_id

    def change(self, product_id: UUID, *, price: int, qty: int, version: int) -> None:
        self.products[product_id] = {
            "id": str(product_id), "name": "Lamp", "price": price, "qty": qty,
            "createdAt": "2026-11-23T10:00:00.000Z",
        }  # fmt: skip
        self.versions[product_id] = version

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        product_id = UUID(handler.path.rsplit("/", 1)[1])
        self.asked.append(product_id)
        self.headers.append(handler.headers)
        if self.is_broken:
            status, body = 500, b"<h1>Server Error</h1>"
        elif self.answer_instead is not None:
            status, body = 200, self.answer_instead
        elif product_id in self.products:
            status, body = 200, msgspec.json.encode(self.products[product_id])
        else:
            status, body = 404, b'{"code": "product_not_found"}'
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        if status == 200:
            handler.send_header("ETag", f'"{self.versions.get(product_id, 0)}"')
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def product_service(settings, monkeypatch) -> Iterator[FakeProductService]:
    fake = FakeProductService()
    settings.PRODUCT_API_URL = fake.url
    settings.OTHER_SERVICE = {**settings.OTHER_SERVICE, "api": fake.url}
    # Whoever had it down before us is not our business.
    monkeypatch.setattr(
        "orders_project.orders.product_service._breaker", Breaker("it", pause_seconds=0.2)
    )
    yield fake
    fake.close()


@pytest.fixture
def intake_through(settings, monkeypatch, transactional_db) -> Iterator[Callable[[str], Intake]]:  # noqa: ARG001 - what is on its way is stored before the tables are emptied
    """Return a function that has orders accepted by a new intake, through the broker at a URL."""
    made: list[Intake] = []
    on_its_way = threading.Lock()

    def commit_alone(commit: Commit, orders: Sequence[AcceptedOrder]) -> Outcome:
        with on_its_way:
            return commit(orders)

    def through(url: str) -> Intake:
        settings.BROKER_URL = url
        fresh = Intake()
        for commits in (fresh._plain_commits, fresh._keyed_commits):
            commits._commit = partial(commit_alone, commits._commit)
        for module in (placement, views):
            monkeypatch.setattr(module, "intake", lambda: fresh)
        made.append(fresh)
        return fresh

    yield through
    with on_its_way:
        for intake in made:
            intake.close()


@pytest.fixture
def broker_with_queue(broker, intake_through) -> Iterator[VirtualHost]:
    """The broker, with the queue of the workers, and no worker."""
    broker.declare_queue(PersistOrders.queue)
    intake_through(broker.url)
    yield broker
    broker.delete_queue(PersistOrders.queue)


@pytest.fixture
def unused_broker_url() -> str:
    """Where no broker is."""
    return f"amqp://guest:guest@127.0.0.1:{unused_port()}//"


@pytest.fixture
def without_broker(intake_through, unused_broker_url) -> Intake:
    """Nothing listens where the broker should be."""
    return intake_through(unused_broker_url)


@pytest.fixture
def accepted_order() -> Callable[..., AcceptedOrder]:
    """Return a function that makes accepted orders."""
    return an_order


@pytest.fixture
def order(accepted_order) -> Order:
    """One that is stored, and PENDING."""
    accepted = accepted_order()
    services.place_orders([accepted])
    return Order.objects.get(id=accepted.id)
