"""The order service as it runs: gunicorn, gevent, and one process for everybody."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests

from orders_project.orders import services
from orders_project.orders.commands import PersistOrders
from orders_project.orders.models import Order
from servicekit.access.known import new_key
from servicekit.access.services import make_key
from servicekit.identifiers import new_id
from tests.orders.stock_news import reserved, settle
from tests.servicekit.private_broker import eventually
from tests.servicekit.worker import child_of, database_url, running_web
from tools.chaos.proxy import Fault, Proxy

pytestmark = pytest.mark.django_db(transaction=True)

# A request has 1.8 s; the rest is for a machine that does other things, too.
IN_TIME = 3.0
CLIENTS = 200


class WebProcess:
    """The order service under gunicorn, with one worker."""

    def __init__(self, master: subprocess.Popen[bytes], port: int) -> None:
        self._master = master
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def threads(self) -> int:
        """How many threads of the operating system the worker has."""
        return len(list(Path(f"/proc/{child_of(self._master)}/task").iterdir()))

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, **{"timeout": 30, **options})

    def order(self, product_id: UUID, **headers: str) -> requests.Response:
        body = {"productId": str(product_id), "quantity": 2}
        return requests.post(f"{self.url}/orders", json=body, headers=headers, timeout=30)

    def ask_to_end(self) -> None:
        self._master.send_signal(signal.SIGTERM)

    def wait_for_end(self) -> int:
        return self._master.wait(30)


@pytest.fixture
def line_to_database() -> Iterator[Proxy]:
    with Proxy(database_url("orders")) as line:
        yield line


@pytest.fixture
def start(tmp_path, broker, product_service) -> Iterator[Callable[..., WebProcess]]:
    """Return a function that starts the order service, with all that it needs."""
    broker.declare_queue(PersistOrders.queue)
    settings = {
        "DATABASE_POOL_SIZE": "8", "ORDERS_DATABASE_URL": database_url("orders"),
        "BROKER_URL": broker.url, "PRODUCT_API_URL": product_service.url,
    }  # fmt: skip
    with contextlib.ExitStack() as started:

        def web_process(**changed: str) -> WebProcess:
            application = "orders_project.config.wsgi:application"
            running = running_web(application, tmp_path, **{**settings, **changed})
            return WebProcess(*started.enter_context(running))

        yield web_process
    broker.delete_queue(PersistOrders.queue)


@contextlib.contextmanager
def many_connections(port: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Connect many clients that have all sent the same."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            for _ in range(CLIENTS)
        ]
        for each in sockets:
            each.sendall(sent)
        yield sockets


def answer_to(client: socket.socket) -> dict[str, Any]:
    """Read the JSON that a client is answered."""
    response = http.client.HTTPResponse(client)
    response.begin()
    assert response.status == 200
    return json.loads(response.read())


HALF_REQUESTS = {
    "half a line": b"GET /ord",
    "half the headers": b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-",
    "half a body": (
        b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    ),
    "half a chunk": (
        b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n40\r\n{"
    ),
}


class TestManyConnections:
    @pytest.mark.parametrize("sent", HALF_REQUESTS.values(), ids=HALF_REQUESTS.keys())
    def test_with_half_a_request_each_keep_nobody_waiting(
        self, start, product_service, order, sent
    ):
        web = start()
        product_id = product_service.add()
        web.order(product_id)
        with many_connections(web.port, sent):
            for ask in (
                lambda: web.get(f"/orders/{order.id}"),
                lambda: web.order(product_id),
                lambda: web.get("/health/live"),
            ):
                began = time.monotonic()
                assert ask().ok
                # Half a request is given up after twenty.
                assert time.monotonic() - began < 10

    def test_that_wait_for_an_order_cost_no_thread_and_are_woken(self, start, order):
        web = start()
        waiting = f"GET /orders/{order.id}?wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        # One waits before: the thread that listens for all is there then.
        web.get(f"/orders/{order.id}?wait=1")
        before = web.threads()
        with many_connections(web.port, waiting) as clients:
            assert web.get("/health/live").elapsed.total_seconds() < 10
            # All of them have been read by now, and wait.
            time.sleep(0.5)
            assert web.threads() == before
            began = time.monotonic()
            settle(reserved(order))
            answers = [answer_to(client) for client in clients]

            assert time.monotonic() - began < 20
        assert {answer["status"] for answer in answers} == {"CONFIRMED"}

    def test_with_one_key_are_one_order_within_the_time_of_a_request(self, start, product_service):
        web = start()
        product_id = product_service.add()
        web.order(product_id)

        headers = {"Idempotency-Key": str(product_id)}
        with ThreadPoolExecutor(50) as clients:
            answers = list(clients.map(lambda _: web.order(product_id, **headers), range(50)))

        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        assert Order.objects.count() == 1


class TestTwoIdempotencyKeys:
    @pytest.mark.parametrize(("first", "second"), [("a", "b"), ('"a', 'b"'), ('"a"', '"b"')])
    def test_do_not_pass_as_one(self, start, product_service, first, second):
        web = start()
        body = json.dumps({"productId": str(product_service.add()), "quantity": 2})
        client = http.client.HTTPConnection("127.0.0.1", web.port, timeout=10)
        with contextlib.closing(client):
            client.putrequest("POST", "/orders")
            client.putheader("Content-Type", "application/json")
            client.putheader("Content-Length", str(len(body)))
            client.putheader("Idempotency-Key", first)
            client.putheader("Idempotency-Key", second)
            client.endheaders(body.encode())
            answer = client.getresponse()
            problem = json.loads(answer.read())

        assert (answer.status, problem.get("code")) == (400, "malformed_idempotency_key")


class TestADatabaseThatFallsSilent:
    @pytest.fixture
    def web(self, start, line_to_database) -> WebProcess:
        return start(ORDERS_DATABASE_URL=line_to_database.url)

    def test_has_questions_answered_503_in_time_and_orders_accepted(
        self, web, line_to_database, product_service, order
    ):
        product_id = product_service.add()
        assert web.get(f"/orders/{order.id}").status_code == 200
        assert web.order(product_id).status_code == 201
        line_to_database.blackhole()

        for _ in range(3):
            began = time.monotonic()
            answer = web.get(f"/orders/{order.id}")
            assert time.monotonic() - began < IN_TIME
            assert (answer.status_code, answer.json()["code"]) == (503, "temporarily_unavailable")
            assert int(answer.headers["Retry-After"]) > 0

            began = time.monotonic()
            accepted = web.order(product_id)
            assert time.monotonic() - began < IN_TIME
            assert accepted.status_code == 201

    def test_has_orders_under_a_key_accepted_from_the_first(
        self, web, line_to_database, product_service, order
    ):
        product_id = product_service.add()
        web.order(product_id)
        # Leaves a connection in the pool.
        assert web.get(f"/orders/{order.id}").status_code == 200
        line_to_database.blackhole()

        keys = [{"Idempotency-Key": f"{product_id}-{n}"} for n in range(5)]
        with ThreadPoolExecutor(5) as clients:
            answers = list(clients.map(lambda key: web.order(product_id, **key), keys))

        assert {answer.status_code for answer in answers} == {201}

    def test_leaves_an_accepted_order_to_be_seen(self, web, line_to_database, product_service):
        product_id = product_service.add()
        web.order(product_id)
        line_to_database.blackhole()
        accepted = web.order(product_id)
        began = time.monotonic()
        found = web.get(f"/orders/{accepted.json()['id']}")

        assert time.monotonic() - began < IN_TIME
        assert (found.status_code, found.json()) == (200, accepted.json())

    def test_lets_orders_with_a_known_api_key_in_and_judges_no_other(
        self, start, line_to_database, product_service
    ):
        web = start(REQUIRE_API_KEY="true", ORDERS_DATABASE_URL=line_to_database.url)
        product_id = product_service.add()
        _, known = make_key(name="a partner", scopes=["orders:place"])

        def order(key: str) -> requests.Response:
            return web.order(product_id, Authorization=f"Bearer {key}")

        assert (order(known).status_code, web.order(product_id).status_code) == (201, 401)
        line_to_database.blackhole()
        eventually(lambda: order(new_key()).status_code == 503, within_seconds=30)

        for _ in range(5):
            answer = order(known)
            assert (answer.status_code, answer.elapsed.total_seconds() < IN_TIME) == (201, True)

    def test_keeps_many_who_ask_at_once_waiting_no_longer(
        self, web, line_to_database, product_service
    ):
        # More of them than there are connections to the database.
        product_id = product_service.add()
        web.order(product_id)
        line_to_database.blackhole()

        with ThreadPoolExecutor(40) as clients:
            answers = list(clients.map(lambda _: web.get(f"/orders/{new_id()}"), range(40)))

        assert {answer.status_code for answer in answers} == {503}
        assert max(answer.elapsed.total_seconds() for answer in answers) < IN_TIME


class TestABrokerThatFallsSilent:
    def test_at_any_point_of_a_new_connection_costs_no_order(self, start, broker, product_service):
        product_id, frame = product_service.add(), 0
        with Proxy(broker.url) as line:
            web = start(BROKER_URL=line.url)
            web.order(product_id)
            is_established = False
            while not is_established:
                frame += 1
                fault = line.arm(Fault("hold", frame, "server"))
                line.cut()
                # The first finds the old connection cut, and the broker is left alone for a second.
                while not fault.reached.wait(0.1):
                    assert web.order(product_id).status_code == 201
                assert web.order(product_id).status_code == 201
                is_established = "<\\x00P" in fault.at  # a confirm
                line.heal()
        # The handshake of the connection, and after it that of its channel.
        assert frame > 4


class TestTheEnd:
    def test_lets_requests_that_wait_have_their_answer(self, start, order):
        web = start()
        waiting = f"GET /orders/{order.id}?wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        with many_connections(web.port, waiting) as clients:
            assert web.get("/health/live").ok
            time.sleep(0.5)
            began = time.monotonic()
            web.ask_to_end()
            answers = [answer_to(client) for client in clients]

            assert {answer["status"] for answer in answers} == {"PENDING"}
            assert time.monotonic() - began < 10
        assert web.wait_for_end() == 0
        # Long before they would have had their answers.
        assert time.monotonic() - began < 20


JSON = {"Content-Type": "application/json"}


class TestABodyInChunks:
    def test_is_taken(self, start, product_service):
        web = start()
        product_id = str(product_service.add()).encode()

        body = iter((b'{"productId": "', product_id, b'", ', b'"quantity": 2}'))
        answer = requests.post(f"{web.url}/orders", data=body, headers=JSON, timeout=10)

        assert (answer.status_code, answer.json()["quantity"]) == (201, 2)

    @pytest.mark.parametrize(
        ("parts", "status", "code"),
        [
            ([b"{}".ljust(1024)] * 65, 413, "body_too_large"),
            ([b"{"], 400, "malformed_body"),
            ([], 400, "malformed_body"),
        ],
    )
    def test_is_refused_as_any_other(self, start, parts, status, code):
        web = start()
        with requests.Session() as client:
            answer = client.post(f"{web.url}/orders", data=iter(parts), headers=JSON, timeout=10)

            assert (answer.status_code, answer.json()["code"]) == (status, code)
            # And its end is not taken for the beginning of the next one.
            assert client.get(f"{web.url}/health/live", timeout=10).ok


class TestAtItsPublicAddress:
    @pytest.fixture
    def web(self, start) -> WebProcess:
        web: WebProcess = start(PUBLIC_URL="https://shop.example")
        return web

    def ask(self, web: WebProcess, path: str, **headers: str) -> requests.Response:
        return web.get(path, headers={"Host": "shop.example", **headers}, allow_redirects=False)

    def test_is_named_by_every_link(self, web, product_service, accepted_order):
        services.place_orders([accepted_order(), accepted_order()])

        placed = web.order(product_service.add())
        page = web.get("/orders?limit=1")
        root = web.get("/").json()

        assert placed.headers["Location"] == f"https://shop.example/orders/{placed.json()['id']}"
        assert page.headers["Link"].startswith("<https://shop.example/orders?limit=1&cursor=")
        assert all(address.startswith("https://shop.example/") for address in root.values())

    def test_pages_are_led_to_https_and_told_to_stay_there(self, web):
        page = {"Accept": "text/html"}

        plain = self.ask(web, "/admin/login/", **page)
        secure = self.ask(web, "/admin/login/", **page, **{"X-Forwarded-Proto": "https"})

        assert (plain.status_code, plain.headers["Location"]) == (
            301, "https://shop.example/admin/login/",
        )  # fmt: skip
        assert (secure.status_code, secure.headers["Strict-Transport-Security"]) == (
            200, "max-age=2592000",
        )  # fmt: skip
        assert "; Secure" in secure.headers["Set-Cookie"]

    @pytest.mark.parametrize("path", ["/health/ready", "/metrics", "/orders", "/"])
    def test_programs_inside_go_on_by_plain_http(self, web, path):
        assert web.get(path, allow_redirects=False).status_code == 200

    def test_forms_are_taken_from_there(self, web):
        secure = {"X-Forwarded-Proto": "https", "Accept": "text/html"}
        form = self.ask(web, "/admin/login/", **secure)
        answer = requests.post(
            f"{web.url}/admin/login/",
            data={
                "username": "x", "password": "x",
                "csrfmiddlewaretoken": form.cookies["orders_csrf"],
            },
            headers={
                # A proxy that names the service instead of itself.
                **secure, "Host": "localhost", "Origin": "https://shop.example",
                "Cookie": f"orders_csrf={form.cookies['orders_csrf']}",
            },
            timeout=30,
        )  # fmt: skip

        assert answer.status_code == 200
        assert "Please enter the correct username" in answer.text
