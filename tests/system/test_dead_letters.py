"""Messages that nobody could apply, until a person has corrected them: through the admins."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import requests
from kombu import Connection
from shop import Shop, eventually

from deploy.native.stack import Stack
from orders_project.orders.commands import PersistOrders
from servicekit.identifiers import new_id
from servicekit.messaging.celery_protocol import task_message
from servicekit.messaging.publisher import ConfirmingPublisher
from servicekit.messaging.topology import dead_letter_queue_name
from servicekit.timestamps import now_in_milliseconds, rfc3339


class Admin:
    """A person in the admin of one service."""

    def __init__(self, api_url: str, shop: Shop) -> None:
        self.address = api_url.rsplit("/", 1)[0] + "/admin/"
        self.http = requests.Session()
        self.http.trust_env = False
        self._submit(
            "login/?next=/admin/",
            username=shop.environment["ADMIN_USERNAME"],
            password=shop.environment["ADMIN_PASSWORD"],
        )

    def correct(self, message_id: int, body: bytes) -> None:
        self._submit(f"parking/parkedmessage/{message_id}/change/", body_text=body.decode())

    def replay(self, message_id: int) -> None:
        answer = self._submit(f"parking/parkedmessage/{message_id}/replay/", confirmed="1")
        assert "Replay requested" in answer.text

    def page(self, message_id: int) -> str:
        return self.http.get(
            f"{self.address}parking/parkedmessage/{message_id}/change/", timeout=30
        ).text

    def _submit(self, path: str, **fields: str) -> requests.Response:
        page = self.http.get(self.address + path, timeout=30)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, page.text[:500]
        answer = self.http.post(
            self.address + path, data={"csrfmiddlewaretoken": token[1], **fields}, timeout=30
        )
        assert answer.status_code == 200, answer.text[:500]
        return answer


@pytest.fixture
def poison(shop: Shop) -> "Poison":
    return Poison(shop)


class Poison:
    """Puts messages into queues, and finds them where they are parked."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    @contextmanager
    def parked(self, service: str, queue: str) -> Iterator[list[dict[str, Any]]]:
        """Fill a list with what is parked from a queue because of what is done meanwhile."""
        before = {each["id"] for each in self._shop.parked(service, queue=queue)}
        found: list[dict[str, Any]] = []
        yield found

        def look() -> bool:
            parked = self._shop.parked(service, queue=queue)
            found[:] = [each for each in parked if each["id"] not in before]
            return bool(found)

        eventually(look)


class TestAParkedEvent:
    def test_is_applied_once_a_person_has_corrected_it(self, shop: Shop, poison: Poison) -> None:
        lamp = shop.create_product(qty=10)
        order = {"orderId": uuid4().int % 10**9, "productId": lamp["id"], "quantity": 0}
        with (
            poison.parked("products", "product_order_queue") as parked,
            Connection(shop.environment["BROKER_URL"]) as connection,
        ):
            channel = connection.channel()
            channel.basic_publish(
                channel.prepare_message(msgspec.json.encode(order), properties={}),
                exchange="order.exchange",
                routing_key="order.created",
            )
        [message] = parked
        admin = Admin(shop.products, shop)
        assert "quantity" in admin.page(message["id"])
        admin.correct(message["id"], msgspec.json.encode({**order, "quantity": 4}))
        admin.replay(message["id"])

        eventually(lambda: shop.product(lamp["id"])["qty"] == 6)
        eventually(lambda: "replayed" in admin.page(message["id"]))
        assert shop.ledger().differences == []


class TestAParkedTask:
    def test_is_run_by_celery_once_a_person_has_corrected_it(
        self, shop: Shop, poison: Poison
    ) -> None:
        lamp = shop.create_product(qty=10)
        order_id = str(new_id())
        order = {
            "id": order_id, "productId": lamp["id"], "quantity": "2", "totalPrice": 200,
            "createdAt": rfc3339(now_in_milliseconds()),
        }  # fmt: skip
        task = task_message(
            task=PersistOrders.task_name,
            queue=PersistOrders.queue,
            task_id=uuid4(),
            kwargs={"orders": [order]},
        )
        publisher = ConfirmingPublisher(shop.environment["BROKER_URL"])
        with poison.parked("orders", PersistOrders.queue) as parked:
            publisher.publish([task])
        publisher.close()
        [message] = parked
        assert "Expected `int`" in message["reason"]
        admin = Admin(shop.orders, shop)
        admin.correct(message["id"], bytes(message["body"]).replace(b'"2"', b"2"))
        admin.replay(message["id"])

        assert shop.final_status(order_id) == "CONFIRMED"
        eventually(lambda: shop.product(lamp["id"])["qty"] == 8)
        assert shop.ledger().differences == []

    def test_with_an_order_that_is_not_stored_is_a_difference(
        self, stack: Stack, shop: Shop, poison: Poison
    ) -> None:
        lamp = shop.create_product(qty=10)
        ids = sorted(str(new_id()) for _ in range(2))
        orders = [
            {
                "id": order_id, "productId": lamp["id"], "quantity": 1, "totalPrice": 100,
                "createdAt": rfc3339(now_in_milliseconds()),
            }
            for order_id in ids
        ]  # fmt: skip
        task = task_message(
            task=PersistOrders.task_name,
            queue=dead_letter_queue_name(PersistOrders.queue),
            task_id=uuid4(),
            kwargs={"orders": orders},
        )
        check = "no order is parked and not stored: 2 orders lie"
        rest = f"and are not stored: {ids[0]}, …"
        stack.stop_process("orders-worker")
        publisher = ConfirmingPublisher(shop.environment["BROKER_URL"])
        # And one that nobody could have read: py-amqp has no bytes for it.
        publisher.publish([task, replace(task, body=b"")])
        publisher.close()

        # Twice, because looking must not change it.
        for _ in range(2):
            assert shop.ledger().differences == [f"{check} in orders.persist.dead {rest}"]

        with poison.parked("orders", PersistOrders.queue) as parked:
            stack.start_process("orders-worker")
        assert shop.ledger().differences == [
            f"{check} in parked messages from orders.persist {rest}"
        ]

        [message] = [each for each in parked if each["body"]]
        Admin(shop.orders, shop).replay(message["id"])
        for order_id in ids:
            assert shop.final_status(order_id) == "CONFIRMED"
        assert shop.ledger().differences == []
