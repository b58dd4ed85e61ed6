"""One order, from the request to its settlement, under the ids of the request."""

import json
import re
from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis
from kombu import Connection, Exchange, Queue
from shop import Shop, eventually

from tools.chaos.harness import Harness

PROCESSES = ("product-service", "order-service", "products-worker", "orders-worker")


@pytest.fixture
def trace_id() -> str:
    return uuid4().hex


@pytest.fixture
def told(stack: Harness) -> Iterator[None]:
    """All four processes tell everything, as JSON."""
    for name in PROCESSES:
        stack.set_environment(name, LOG_LEVEL="DEBUG", LOG_FORMAT="json")
    stack.wait_ready()
    yield
    for name in PROCESSES:
        stack.set_environment(name, LOG_LEVEL=None, LOG_FORMAT=None)


class TestATraceparent:
    def test_goes_from_the_request_to_every_message_about_the_order(
        self, shop: Shop, trace_id: str
    ) -> None:
        lamp = shop.create_product(qty=1)
        seen: dict[str, dict[str, object]] = {}
        with Connection(shop.environment["BROKER_URL"]) as connection:
            channel = connection.channel()
            queue = Queue("", exclusive=True)(channel)
            queue.declare()
            queue.bind_to(Exchange("order.exchange", "topic"), "order.created")
            queue.bind_to(Exchange("product.exchange", "topic"), "stock.decided")
            answer = shop.http.post(
                shop.orders, json={"productId": lamp["id"], "quantity": 1}, timeout=30,
                headers={
                    "X-Request-ID": f"req-{trace_id}",
                    "traceparent": f"00-{trace_id}-b7ad6b7169203331-01",
                },
            )  # fmt: skip
            order_id = answer.json()["id"]

            def both() -> bool:
                message = queue.get(no_ack=True)
                if message and message.properties["correlation_id"] == order_id:
                    key, headers = message.delivery_info["routing_key"], message.headers
                    if key == "stock.decided":
                        # A batch has the requests of many orders: each is beside its decision.
                        [decision] = json.loads(message.body)["decisions"]
                        headers["request_id"] = decision["requestId"]
                        headers["traceparent"] = decision["traceparent"]
                    seen[key] = headers
                return len(seen) == 2

            eventually(both)

        assert answer.headers["X-Request-ID"] == f"req-{trace_id}"
        for headers in seen.values():
            assert headers["request_id"] == f"req-{trace_id}"
            assert re.fullmatch(f"00-{trace_id}-[0-9a-f]{{16}}-01", str(headers["traceparent"]))
            assert headers["timestamp_in_ms"].isdecimal()


@pytest.mark.usefixtures("told")
class TestLogs:
    def test_of_all_four_processes_tell_of_one_order_by_one_id(
        self, shop: Shop, stack: Harness, trace_id: str
    ) -> None:
        lamp = shop.create_product(qty=1)

        def is_copied() -> bool:
            with redis.Redis.from_url(shop.environment["CACHE_URL"]) as cache:
                return bool(cache.delete(f"catalog:{lamp['id']}"))

        # Without our own copy of the product, its service is asked for it.
        eventually(is_copied)
        request_id = f"req-{trace_id}"
        answer = shop.http.post(
            shop.orders, json={"productId": lamp["id"], "quantity": 1}, timeout=30,
            headers={"X-Request-ID": request_id},
        )  # fmt: skip
        order_id = answer.json()["id"]
        assert shop.final_status(order_id) == "CONFIRMED"

        def lines(name: str) -> list[dict[str, object]]:
            whole = [json.loads(line) for line in _json_lines(stack, name)]
            return [line for line in whole if line.get("request_id") == request_id]

        for name in PROCESSES:
            eventually(lambda name=name: lines(name))
        for name in PROCESSES[1:]:
            eventually(lambda name=name: order_id in {one.get("order_id") for one in lines(name)})
        [trace] = {str(line["trace_id"]) for name in PROCESSES for line in lines(name)}
        assert re.fullmatch("[0-9a-f]{32}", trace)
        # Celery greets with a page of lines that are no events, unless it is told not to.
        greeted = [name for name in PROCESSES if "[queues]" in stack.log_path(name).read_text()]
        assert greeted == []


def _json_lines(stack: Harness, name: str) -> list[str]:
    # Of the run before there are plain lines, too; the last one may be on its way.
    text = stack.log_path(name).read_text()
    return [line for line in text.splitlines(keepends=True) if line[0] == "{" and line[-1] == "\n"]
