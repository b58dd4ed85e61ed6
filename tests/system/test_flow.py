"""The flow as DESIGN section 3 and 6 promise it, on real servers."""

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from kombu import Connection, Exchange, Queue
from shop import Shop, eventually


@contextmanager
def stranger(shop: Shop, routing_key: str) -> Iterator["queue.Queue[Any]"]:
    """A consumer that knows nothing of us but the exchange's name and kind."""
    received: queue.Queue[Any] = queue.Queue()
    exchange = Exchange("order.exchange", type="topic", durable=True)
    mine = Queue("", exchange, routing_key=routing_key, exclusive=True)
    stop = threading.Event()

    with Connection(shop.environment["BROKER_URL"]) as connection:
        bound = mine(connection.channel())
        bound.declare()
        bound.consume(callback=received.put, no_ack=True)

        def drain() -> None:
            while not stop.is_set():
                try:
                    connection.drain_events(timeout=0.2)
                except TimeoutError:
                    continue

        thread = threading.Thread(target=drain)
        thread.start()
        try:
            yield received
        finally:
            stop.set()
            thread.join()


class TestTheFlow:
    def test_takes_an_order_from_pending_to_confirmed_and_its_units_from_the_stock(
        self, shop: Shop
    ) -> None:
        lamp = shop.create_product(qty=10, price=190000)
        accepted = shop.order(lamp["id"], 3)

        assert accepted.status_code == 201
        assert accepted.headers["Content-Type"] == "application/json; charset=utf-8"
        order = accepted.json()
        assert set(order) == {"id", "productId", "quantity", "totalPrice", "status", "createdAt"}
        assert order["status"] == "PENDING"
        assert order["totalPrice"] == 570000
        assert UUID(order["id"]).version == 7
        assert accepted.headers["Location"] == f"{shop.orders}/{order['id']}"

        found_at_once = shop.http.get(f"{shop.orders}/{order['id']}", timeout=30)
        assert found_at_once.status_code == 200
        assert shop.final_status(order["id"]) == "CONFIRMED"
        eventually(lambda: shop.product(lamp["id"])["qty"] == 7)
        assert [each["id"] for each in shop.listed(lamp["id"])] == [order["id"]]


class TestAnotherProducer:
    def test_of_orders_gets_its_stock_and_the_books_agree(self, shop: Shop) -> None:
        lamp = shop.create_product(qty=10)
        dead = shop.dead_letters("orders", queue="order_stock_queue")
        ours = shop.order(lamp["id"]).json()["id"]
        theirs = {"orderId": str(uuid4()), "productId": lamp["id"], "quantity": 3}
        gone = {**theirs, "orderId": str(uuid4())}
        with Connection(shop.environment["BROKER_URL"]) as connection:
            producer = connection.Producer(serializer="json")
            for body in (theirs, gone):
                producer.publish(body, exchange="order.exchange", routing_key="order.created")
            # Ten but one of ours and six of theirs.
            eventually(lambda: shop.product(lamp["id"])["qty"] == 3)
            producer.publish(gone, exchange="order.exchange", routing_key="order.cancelled")
        eventually(lambda: shop.product(lamp["id"])["qty"] == 6)

        assert shop.final_status(ours) == "CONFIRMED"
        assert shop.ledger().differences == []
        assert shop.dead_letters("orders", queue="order_stock_queue") == dead


class TestTheEvents:
    def test_reach_a_stranger_as_plain_json_with_five_fields(self, shop: Shop) -> None:
        lamp = shop.create_product(qty=10)
        with stranger(shop, "order.created") as received:
            order = shop.order(lamp["id"], 2).json()
            message = received.get(timeout=30)

        assert json.loads(message.body) == {
            "orderId": order["id"], "productId": lamp["id"], "quantity": 2, "totalPrice": 200,
            "createdAt": order["createdAt"],
        }  # fmt: skip
        assert message.content_type == "application/json"
        assert message.properties["delivery_mode"] == 2
        assert message.properties["type"] == "order.created"
        assert message.properties["correlation_id"] == order["id"]
        UUID(message.properties["message_id"])

    @pytest.mark.parametrize("kind", [int, str], ids=["number", "UUID without dashes"])
    def test_of_somebody_else_are_reserved_like_ours(self, shop: Shop, kind: type) -> None:
        lamp = shop.create_product(qty=10)
        body = {
            "orderId": int(time.time() * 1000) if kind is int else uuid4().hex,
            "productId": lamp["id"], "quantity": 4, "totalPrice": 400,
            "createdAt": "2026-01-01 10:00:00",
        }  # fmt: skip
        with Connection(shop.environment["BROKER_URL"]) as connection:
            channel = connection.channel()
            for _ in range(2):
                # Nothing but a body: no content type, no id, no delivery mode; and twice.
                message = channel.prepare_message(json.dumps(body).encode(), properties={})
                channel.basic_publish(message, "order.exchange", "order.created")

        eventually(lambda: shop.product(lamp["id"])["qty"] == 6)
        assert shop.ledger().differences == []
        assert shop.product(lamp["id"])["qty"] == 6


class TestARush:
    def test_of_1000_orders_by_50_clients_for_600_units_sells_600(self, shop: Shop) -> None:
        lamp = shop.create_product(qty=600)

        shop.order_many(lamp["id"], 1000, clients=50)
        outcomes = shop.final_statuses()

        assert outcomes["CONFIRMED"] == 600
        assert outcomes["REJECTED"] + len(shop.refused) == 400
        assert {each.json()["code"] for each in shop.refused} <= {"insufficient_stock"}
        eventually(lambda: shop.product(lamp["id"])["qty"] == 0)
        assert shop.ledger().differences == []
        # What was acknowledged is what is stored: each once, and nothing else.
        stored = {each["id"]: each for each in shop.listed(lamp["id"])}
        assert {key: {**each, "status": "PENDING"} for key, each in stored.items()} == (
            shop.acknowledged
        )
