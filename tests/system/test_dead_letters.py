"""Tasks that nobody could run, until a person has corrected them: through the admin.

Events are dead-lettered and corrected in a browser: `test_in_a_browser.py`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import requests
from shop import Shop, eventually

from orders_project.orders.commands import PersistOrders
from servicekit.identifiers import new_id
from servicekit.messaging.celery_protocol import task_message
from servicekit.messaging.envelope import OutgoingMessage
from servicekit.messaging.publisher import ConfirmingPublisher
from servicekit.messaging.topology import dead_letter_queue_name
from servicekit.timestamps import now_in_milliseconds, rfc3339
from tools.chaos.harness import Harness


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
        self._submit(f"dead_letters/deadletter/{message_id}/change/", body_text=body.decode())

    def replay(self, message_id: int) -> None:
        answer = self._submit(f"dead_letters/deadletter/{message_id}/replay/", confirmed="1")
        assert "Replay requested" in answer.text

    def _submit(self, path: str, **fields: str) -> requests.Response:
        page = self.http.get(self.address + path, timeout=30)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, page.text[:500]
        answer = self.http.post(
            self.address + path, data={"csrfmiddlewaretoken": token[1], **fields}, timeout=30
        )
        assert answer.status_code == 200, answer.text[:500]
        return answer


@contextmanager
def dead_lettered_meanwhile(shop: Shop, queue: str) -> Iterator[list[dict[str, Any]]]:
    """Fill a list with what is dead-lettered from a queue because of what is done meanwhile."""
    before = {each["id"] for each in shop.dead_letters("orders", queue=queue)}
    found: list[dict[str, Any]] = []
    yield found

    def look() -> bool:
        dead = shop.dead_letters("orders", queue=queue)
        found[:] = [each for each in dead if each["id"] not in before]
        return bool(found)

    eventually(look)


def order_of(lamp: dict[str, Any], quantity: object) -> dict[str, Any]:
    """An order as a web process would hand it over."""
    return {
        "id": str(new_id()), "productId": lamp["id"], "quantity": quantity, "totalPrice": 200,
        "createdAt": rfc3339(now_in_milliseconds()),
    }  # fmt: skip


def task_of(*orders: dict[str, Any], queue: str = PersistOrders.queue) -> OutgoingMessage:
    facts = {"task_id": uuid4(), "kwargs": {"orders": orders}}
    return task_message(task=PersistOrders.task_name, queue=queue, **facts)


class TestADeadTask:
    def test_is_run_by_celery_once_a_person_has_corrected_it(self, shop: Shop) -> None:
        lamp = shop.create_product(qty=10)
        order = order_of(lamp, "2")
        publisher = ConfirmingPublisher(shop.environment["BROKER_URL"])
        with dead_lettered_meanwhile(shop, PersistOrders.queue) as dead:
            publisher.publish([task_of(order)])
        publisher.close()
        [message] = dead
        assert "Expected `int`" in message["reason"]
        admin = Admin(shop.orders, shop)
        admin.correct(message["id"], bytes(message["body"]).replace(b'"2"', b"2"))
        admin.replay(message["id"])

        assert shop.final_status(order["id"]) == "CONFIRMED"
        eventually(lambda: shop.product(lamp["id"])["qty"] == 8)
        assert shop.ledger().differences == []

    def test_with_an_order_that_is_not_stored_is_a_difference(
        self, stack: Harness, shop: Shop
    ) -> None:
        lamp = shop.create_product(qty=10)
        orders = [order_of(lamp, 2) for _ in range(2)]
        task = task_of(*orders, queue=dead_letter_queue_name(PersistOrders.queue))
        ids = sorted(order["id"] for order in orders)
        check = "no order is a dead letter and not stored: 2 orders lie"
        rest = f"and are not stored: {ids[0]}, …"
        stack.stop_process("orders-worker")
        publisher = ConfirmingPublisher(shop.environment["BROKER_URL"])
        # And one that nobody could have read: py-amqp has no bytes for it.
        publisher.publish([task, replace(task, body=b"")])
        publisher.close()

        # Twice, because looking must not change it.
        for _ in range(2):
            assert shop.ledger().differences == [f"{check} in orders.persist.dead {rest}"]

        with dead_lettered_meanwhile(shop, PersistOrders.queue) as dead:
            stack.start_process("orders-worker")
        assert shop.ledger().differences == [f"{check} in dead letters from orders.persist {rest}"]

        [message] = [each for each in dead if each["body"]]
        Admin(shop.orders, shop).replay(message["id"])
        for order_id in ids:
            assert shop.final_status(order_id) == "CONFIRMED"
        assert shop.ledger().differences == []
