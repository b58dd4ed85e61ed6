"""Waiting for the final status instead of asking for it again and again."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.db import OperationalError, connection
from django.test import Client

from orders_project.orders import cache, long_polling, selectors, services
from orders_project.orders.commands import PersistOrders
from orders_project.orders.long_polling import FinalStatusWatch
from orders_project.orders.models import Order
from tests.orders.ordering import place
from tests.orders.stock_news import reserved, settle
from tests.servicekit.private_broker import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def watch(monkeypatch) -> FinalStatusWatch:
    made = FinalStatusWatch(limit=3)
    monkeypatch.setattr(long_polling, "watch", made)
    return made


@pytest.fixture
def order_id(accepted_order) -> UUID:
    accepted = accepted_order()
    services.place_orders([accepted])
    return accepted.id


@pytest.fixture
def in_background() -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
    """Return a function that starts a request and returns what it will have answered."""

    def start(request: Callable[[], Any]) -> Future[Any]:
        def send() -> Any:
            try:
                return request()
            finally:
                connection.close()

        return pool.submit(send)

    with ThreadPoolExecutor(8) as pool:
        yield start


@pytest.fixture
def ask(in_background, watch) -> Callable[[UUID], Future[Any]]:
    """Return a function that asks for an order, and waits for what becomes of it."""

    def asked(order_id: UUID) -> Future[Any]:
        before = watch.waiting
        answer = in_background(lambda: Client().get(f"/orders/{order_id}?wait=30"))
        eventually(lambda: watch.waiting == before + 1)
        return answer

    return asked


def confirm(order_id: UUID) -> None:
    settle(reserved(Order.objects.get(id=order_id)))


class TestGetOrderWithWait:
    @pytest.mark.parametrize("has_redis", [True, False])
    def test_answers_as_soon_as_the_order_is_final(self, watch, order_id, ask, request, has_redis):
        if not has_redis:
            request.getfixturevalue("without_redis")
        answer = ask(order_id)
        confirm(order_id)

        # Well before the thirty seconds, or the test would be ended.
        assert answer.result(timeout=10).json()["status"] == "CONFIRMED"
        assert watch.waiting == 0

    def test_is_woken_and_need_not_look(self, watch, order_id, in_background, monkeypatch):
        looked = threading.Event()
        monkeypatch.setattr(watch, "_look", looked.set)
        answer = in_background(lambda: Client().get(f"/orders/{order_id}?wait=30"))
        # Once after the subscription, which is there then.
        assert looked.wait(10)
        confirm(order_id)

        assert answer.result(timeout=10).json()["status"] == "CONFIRMED"

    @pytest.mark.usefixtures("watch")
    @pytest.mark.parametrize("error", [OperationalError("away"), ZeroDivisionError("a bug")])
    def test_bears_that_looking_fails(self, order_id, in_background, monkeypatch, error):
        look, failures = selectors.final_among, [error]

        def fail_once(ids: list[UUID]) -> set[UUID]:
            if failures:
                raise failures.pop()
            return look(ids)

        monkeypatch.setattr(selectors, "final_among", fail_once)
        answer = in_background(lambda: Client().get(f"/orders/{order_id}?wait=30"))
        eventually(lambda: not failures)
        confirm(order_id)

        assert answer.result(timeout=20).json()["status"] == "CONFIRMED"

    def test_hears_of_a_cancellation(self, order_id, ask):
        answer = ask(order_id)
        services.cancel_order(order_id)

        assert answer.result(timeout=10).json()["status"] == "CANCELLED"

    @pytest.mark.usefixtures("watch")
    def test_answers_at_once_when_it_is_final_already(self, order_id, monkeypatch):
        confirm(order_id)
        monkeypatch.setattr(long_polling.Waiter, "wait", pytest.fail)

        assert Client().get(f"/orders/{order_id}?wait=30").json()["status"] == "CONFIRMED"

    @pytest.mark.usefixtures("watch")
    def test_tells_what_is_known_when_the_time_is_over(self, order_id):
        assert Client().get(f"/orders/{order_id}?wait=1").json()["status"] == "PENDING"

    def test_answers_at_once_when_too_many_wait(self, order_id, ask):
        answers = [ask(order_id) for _ in range(3)]

        assert Client().get(f"/orders/{order_id}?wait=30").json()["status"] == "PENDING"

        confirm(order_id)
        assert {answer.result(10).json()["status"] for answer in answers} == {"CONFIRMED"}

    def test_is_answered_before_the_process_ends(self, watch, order_id, ask):
        answer = ask(order_id)
        watch.close()

        assert answer.result(timeout=10).json()["status"] == "PENDING"
        assert Client().get(f"/orders/{order_id}?wait=30").json()["status"] == "PENDING"

    def test_waits_for_an_order_that_is_not_stored_yet(self, accepted_order, ask):
        accepted = accepted_order()
        cache.keep_copies([accepted])
        answer = ask(accepted.id)
        services.place_orders([accepted])
        confirm(accepted.id)

        assert answer.result(timeout=10).json()["status"] == "CONFIRMED"

    @pytest.mark.parametrize("wait", ["", "-1", "31", "1.5", "soon", "%00", "1" * 20])
    def test_refuses_to_wait_for_nonsense(self, client, order_id, wait):
        answer = client.get(f"/orders/{order_id}?wait={wait}")

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


class TestPreferWait:
    def test_answers_201_with_the_final_status(
        self, watch, product_service, broker_with_queue, in_background
    ):
        product_id = product_service.add()
        prefer = "respond-async, wait=30"
        answer = in_background(lambda: place(Client(), product_id, prefer=prefer))
        [message] = broker_with_queue.take(PersistOrders.queue, count=1)
        [accepted] = PersistOrders.parse(msgspec.json.decode(message.body)[1]).orders
        eventually(lambda: watch.waiting == 1)
        services.place_orders([accepted])
        confirm(accepted.id)

        answered = answer.result(timeout=10)
        assert (answered.status_code, answered.json()["status"]) == (201, "CONFIRMED")
        assert answered["Preference-Applied"] == "wait=30"

    @pytest.mark.usefixtures("watch", "broker_with_queue")
    def test_answers_201_and_pending_when_the_time_is_over(self, product_service):
        answer = place(Client(), product_service.add(), prefer="wait=1")

        assert (answer.status_code, answer.json()["status"]) == (201, "PENDING")
        assert answer["Preference-Applied"] == "wait=1"

    @pytest.mark.usefixtures("broker_with_queue")
    def test_never_makes_an_accepted_order_one_that_is_not_found(self, accepted_order):
        # As when Redis begins anew, before a worker has stored the order.
        accepted = accepted_order()
        rendered, has_waited = long_polling.accepted_when_final(accepted, seconds=1)

        assert msgspec.json.decode(rendered)["status"] == "PENDING"
        assert not has_waited

    def test_is_not_applied_when_too_many_wait(self, product_service, monkeypatch):
        monkeypatch.setattr(long_polling, "watch", FinalStatusWatch(limit=0))
        answer = place(Client(), product_service.add(), prefer="wait=30")

        assert (answer.status_code, answer.json()["status"]) == (201, "PENDING")
        assert "Preference-Applied" not in answer

    @pytest.mark.usefixtures("watch", "broker_with_queue")
    @pytest.mark.parametrize("prefer", ["", "wait", "wait=", "wait=soon", "wait=-1", "waiting=5"])
    def test_that_makes_no_sense_is_ignored(self, product_service, prefer):
        answer = place(Client(), product_service.add(), prefer=prefer)

        assert answer.status_code == 201
        assert "Preference-Applied" not in answer
