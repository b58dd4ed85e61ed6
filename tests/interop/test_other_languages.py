"""Our messages and queues, as clients in other languages meet them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import amqp
import jsonschema
import pytest
import yaml
from clients import Client, Message, go, node
from kombu import Connection

from tests.system.shop import Shop, eventually
from tools import asyncapi
from tools.chaos.harness import Harness

QUEUE = "product_order_queue"
DOCUMENT = yaml.safe_load(asyncapi.DOCUMENT.read_text())
DESCRIBED = {each["name"]: each for each in DOCUMENT["components"]["messages"].values()}


@pytest.fixture(scope="session", params=[node, go], ids=["Node", "Go"])
def command(request: pytest.FixtureRequest) -> list[str]:
    return request.param()


@pytest.fixture
def client(command: list[str], shop: Shop, tmp_path: Path) -> Client:
    return Client(command, shop.environment["BROKER_URL"], tmp_path / "printed")


class Including(dict[str, Any]):
    """Equal to whatever has all of this, and perhaps fields that readers skip."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and {**other, **self} == other


def bodies(messages: list[Message]) -> list[tuple[str, Any]]:
    """Return routing keys and bodies, after a look at what is said beside them."""
    for message in messages:
        said = message["properties"]
        assert (said["contentType"], said["deliveryMode"]) == ("application/json", 2)
        assert said["type"] == message["routingKey"]
        assert all(said[name] for name in ("messageId", "correlationId", "timestamp"))
        assert {type(value) for value in message["headers"].values()} == {str}, message
        described = DESCRIBED[message["routingKey"]]
        for part, schema in (("body", "payload"), ("headers", "headers")):
            jsonschema.validate(message[part], {**DOCUMENT, **described[schema]})
    return [(message["routingKey"], message["body"]) for message in messages]


class TestReadingOurEvents:
    def test_about_products(self, client: Client, shop: Shop) -> None:
        keys = "product.created,product.updated,product.archived"
        with client.consuming("product.exchange", keys):
            lamp = shop.create_product(qty=10, name="Lampe à poser")
            address = f"{shop.products}/{lamp['id']}"
            assert shop.http.patch(address, json={"price": 150}, timeout=30).status_code == 200
            assert shop.http.delete(address, timeout=30).status_code == 204
            messages = client.messages(3, about=lamp["id"])

        assert bodies(messages) == [
            ("product.created", {**lamp, "version": 1}),
            ("product.updated", {**lamp, "price": 150, "version": 2}),
            ("product.archived", {**lamp, "price": 150, "version": 3}),
        ]

    def test_about_orders(self, client: Client, shop: Shop) -> None:
        lamp = shop.create_product(qty=10)
        with client.consuming("order.exchange", "order.created,order.cancelled"):
            order = shop.order(lamp["id"], 3).json()
            shop.final_status(order["id"])
            shop.cancel(order["id"])
            messages = client.messages(2, about=order["id"])

        about = {"orderId": order["id"], "productId": lamp["id"], "quantity": 3}
        assert bodies(messages) == [
            ("order.created", {**about, "totalPrice": 300, "createdAt": order["createdAt"]}),
            ("order.cancelled", {**about, "cancelledAt": ANY}),
        ]

    def test_about_stock(self, client: Client, shop: Shop, stack: Harness) -> None:
        lamp = shop.create_product(qty=5)
        with client.consuming("product.exchange", "stock.*"):
            sold = shop.order(lamp["id"], 3).json()["id"]
            assert shop.final_status(sold) == "CONFIRMED"
            shop.cancel(sold)
            client.messages(2, about=lamp["id"])
            stack.stop_process("products-worker")
            refused = shop.order(lamp["id"], 2).json()["id"]
            shop.http.delete(f"{shop.products}/{lamp['id']}", timeout=30)
            stack.start_process("products-worker")
            messages = client.messages(3, about=lamp["id"])

        about = {"productId": lamp["id"], "version": ANY}
        at = {"announcedAt": ANY, "decidedAt": ANY}
        reserved = {"orderId": sold, "quantity": 3, "remaining": 2, "outcome": "RESERVED"}
        released = {"orderId": sold, "quantity": 3, "remaining": 5, "releasedAt": ANY}
        rejected = {"orderId": refused, "quantity": 2, "remaining": 5, "outcome": "REJECTED"}
        rejected["reason"] = "product_archived"
        # One order at a time, and so one decision in each list.
        assert bodies(messages) == [
            ("stock.decided", {"decisions": [Including(about | at | reserved)]}),
            ("stock.released", about | released),
            ("stock.decided", {"decisions": [Including(about | at | rejected)]}),
        ]


class TestABareOrder:
    def test_takes_the_stock_once_though_it_comes_twice(self, client: Client, shop: Shop) -> None:
        lamp = shop.create_product(qty=10)
        order = {"orderId": time.time_ns() // 1000, "productId": lamp["id"], "quantity": 4}

        for _ in range(2):
            client.publish("order.exchange", "order.created", order)

        eventually(lambda: shop.product(lamp["id"])["qty"] == 6)
        assert shop.ledger().differences == []
        assert shop.product(lamp["id"])["qty"] == 6


class TestDeclaringOurQueue:
    @pytest.fixture
    def without_queue(self, shop: Shop, stack: Harness) -> Iterator[None]:
        """Neither the queue nor the worker that consumes from it is there."""
        with Connection(shop.environment["BROKER_URL"]) as connection:
            channel: Any = connection.channel()
            stack.stop_process("products-worker")
            channel.queue_delete(QUEUE)
            yield
            # Our worker notices, and makes it as it would have made it.
            channel.queue_delete(QUEUE, if_empty=True)

    def test_plainly_is_possible_beside_our_worker(self, client: Client) -> None:
        client.declare(QUEUE)

    @pytest.mark.usefixtures("without_queue")
    def test_plainly_before_our_worker_does_not_keep_it_away(
        self, client: Client, shop: Shop, stack: Harness
    ) -> None:
        client.declare(QUEUE)
        stack.start_process("products-worker", wait=False)
        stack.wait_ready("products-worker", timeout_seconds=30)

        order = shop.order(shop.create_product(qty=10)["id"]).json()
        assert shop.final_status(order["id"]) == "CONFIRMED"


class TestTheFieldsOfOurHeaders:
    @pytest.fixture
    def seen(self) -> dict[str, set[type]]:
        """The types of the header fields that came in so far, by type of message.

        What py-amqp reads as text was sent as a long string (`S`), and as nothing else.
        """
        return {}

    @pytest.fixture
    def channel(self, shop: Shop, seen) -> Iterator[Any]:
        """A channel that gets every event."""

        def look(message: Any) -> None:
            seen[message.properties["type"]] = {type(each) for each in message.headers.values()}

        with Connection(shop.environment["BROKER_URL"]) as connection:
            channel: Any = connection.channel()
            queue = channel.queue_declare("", exclusive=True).queue
            for exchange in ("order.exchange", "product.exchange"):
                channel.queue_bind(queue, exchange, "#")
            channel.basic_consume(queue, no_ack=True, callback=look)
            yield channel

    def test_are_strings(self, seen, channel, shop: Shop) -> None:
        order = shop.order(shop.create_product(qty=10)["id"]).json()["id"]
        shop.final_status(order)
        shop.cancel(order)
        expected = {"product.created", "order.created", "order.cancelled", "stock.released"}
        while not expected <= set(seen):
            channel.connection.drain_events(timeout=30)

        assert set().union(*seen.values()) == {str}, seen

    def test_would_betray_a_number(self, seen, channel) -> None:
        headers = {"a": "text", "b": 2**40}
        message = amqp.Message(b"{}", type="number", application_headers=headers)
        channel.basic_publish(message, "product.exchange", "not.ours")
        while "number" not in seen:
            channel.connection.drain_events(timeout=30)

        assert seen["number"] == {str, int}
