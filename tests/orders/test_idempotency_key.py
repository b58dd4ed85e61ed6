"""Placing an order again under the same Idempotency-Key."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from django.db import OperationalError, connection
from django.test import Client
from django_redis import get_redis_connection

from orders_project.orders import cache, selectors, services
from orders_project.orders.commands import PersistOrders
from orders_project.orders.models import Order
from orders_project.orders.placement import intake as placement
from orders_project.orders.placement.durability import Outcome
from orders_project.orders.placement.intake import order_id_of
from servicekit.breaker import Breaker
from servicekit.http.deadline import DeadlineExceeded
from servicekit.timestamps import rfc3339
from tests.orders.ordering import place
from tests.orders.stock_news import put, reserved, settle

pytestmark = pytest.mark.django_db(transaction=True)


def order(client: Client, product_id: UUID, quantity: int = 2, key: str | None = None) -> Any:
    # Each of our products is ordered once, so its id will do.
    key = str(product_id) if key is None else key
    return place(client, product_id, quantity, **{"Idempotency-Key": key})


def rush(requests: int, send: Any) -> list[Any]:
    everybody = threading.Barrier(requests, timeout=60)

    def one(_number: int) -> Any:
        everybody.wait()
        try:
            return send(Client())
        finally:
            connection.close()

    with ThreadPoolExecutor(requests) as pool:
        return list(pool.map(one, range(requests)))


def _fail() -> None:
    # As Django says it of a server that is not there.
    said = "connection failed: nobody is there"
    raise OperationalError(said) from psycopg.OperationalError(said)


@pytest.fixture
def database_goes_away(monkeypatch) -> Callable[[], None]:
    def away(*_arguments: object, **_options: object) -> None:
        _fail()

    def go() -> None:
        monkeypatch.setattr(selectors, "find_stored_order", away)
        monkeypatch.setattr(services, "place_orders", away)

    return go


@pytest.fixture
def announced(broker) -> Iterator[Callable[[], list[str]]]:
    """Return a function that tells which orders were announced, one id for each message."""
    broker.declare_queue("announced")
    broker.bind("announced", "order.exchange", "order.created")

    def take() -> list[str]:
        return [msgspec.json.decode(m.body)["orderId"] for m in broker.take_all("announced")]

    yield take
    broker.delete_queue("announced")


@pytest.fixture
def without_database(database_goes_away) -> None:
    database_goes_away()


@pytest.mark.usefixtures("broker_with_queue")
class TestTheSameKey:
    def test_gives_the_same_answer_byte_for_byte(self, client, product_service, announced):
        product_id = product_service.add()
        first, second = (order(client, product_id) for _ in range(2))

        assert (first.status_code, second.status_code) == (201, 201)
        assert first.content == second.content
        assert first["Location"] == second["Location"]
        assert Order.objects.count() == 1
        assert announced() == [first.json()["id"]]

    def test_gives_it_also_when_price_stock_and_status_have_changed(self, client, product_service):
        product_id = product_service.add(price=10, qty=2)
        first = order(client, product_id)
        product_service.change(product_id, price=99, qty=0, version=2)
        put(product_id, price=99, qty=0, version=2)
        settle(reserved(Order.objects.get()))

        assert order(client, product_id).content == first.content
        assert client.get(first["Location"]).json()["status"] == "CONFIRMED"

    def test_gives_it_also_when_the_database_has_gone_since(
        self, client, product_service, database_goes_away
    ):
        product_id = product_service.add(price=10)
        first = order(client, product_id)
        put(product_id, price=99, qty=5, version=2)
        database_goes_away()

        assert order(client, product_id).content == first.content
        assert order(client, product_id, 3).status_code == 422

    def test_is_the_same_in_quotes_and_without(self, client, product_service):
        product_id = product_service.add()

        quoted = order(client, product_id, key=f'"{product_id}"')
        assert quoted.content == order(client, product_id, key=str(product_id)).content

    def test_is_refused_for_another_order(self, client, product_service):
        product_id = product_service.add()
        order(client, product_id)

        other_product = order(client, product_service.add(), key=str(product_id))
        for answer in (order(client, product_id, 3), other_product):
            assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
        assert Order.objects.count() == 1

    def test_may_be_used_again_after_a_refusal(self, client, product_service):
        product_id = product_service.add(qty=1)
        assert order(client, product_id).status_code == 400
        product_service.change(product_id, price=1, qty=5, version=2)

        assert order(client, product_id).status_code == 201

    @pytest.mark.parametrize(
        "key", ["", '""', '"abc', 'abc"', "a b", '"a", "b"', "a" * 256, '"a";p', "\x7f"]
    )
    def test_is_refused_when_it_is_malformed(self, client, product_service, key):
        answer = order(client, product_service.add(), key=key)

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_idempotency_key")
        assert not Order.objects.exists()

    def test_another_key_is_another_order(self, client, product_service):
        product_id = product_service.add()

        first, second = (order(client, product_id, key=f"{product_id}{n}") for n in (1, 2))
        assert first.json()["id"] != second.json()["id"]


@pytest.mark.usefixtures("broker_with_queue")
class TestTheSameOrderFromFiftyAtOnce:
    REQUESTS = 50

    @pytest.fixture(autouse=True)
    def time_enough(self, monkeypatch) -> None:
        """Threads that all connect anew take longer together than a request has.

        That it is the same within that time, under gevent, is for `test_web_process.py` to say.
        """
        monkeypatch.setattr("servicekit.http.views.REQUEST_SECONDS", 20.0)
        monkeypatch.setattr("orders_project.orders.product_service._TIMEOUTS_SECONDS", (5.0, 5.0))

    def test_without_a_key_it_is_fifty_orders(self, product_service):
        # Proves that the requests of the tests below would otherwise all count.
        product_id = product_service.add()
        answers = rush(self.REQUESTS, lambda client: place(client, product_id))

        assert len({answer.json()["id"] for answer in answers}) == self.REQUESTS

    @pytest.mark.parametrize("has_redis", [True, False])
    def test_with_a_key_it_is_one(self, product_service, request, has_redis):
        if not has_redis:
            request.getfixturevalue("without_redis")
        product_id = product_service.add()
        answers = rush(self.REQUESTS, lambda client: order(client, product_id))

        assert {(each.status_code, each.content) for each in answers} == {(201, answers[0].content)}
        assert Order.objects.count() == 1

    @pytest.mark.usefixtures("without_database")
    def test_with_a_key_it_is_one_without_the_database(self, product_service, broker_with_queue):
        product_id = product_service.add()
        answers = rush(self.REQUESTS, lambda client: order(client, product_id))

        # On a busy machine Redis may be too slow to say who was first: then the answer is 503.
        assert {answer.status_code for answer in answers} <= {201, 503}
        [accepted] = {answer.content for answer in answers if answer.status_code == 201}
        messages = broker_with_queue.take_all(PersistOrders.queue)
        commands = [PersistOrders.parse(msgspec.json.decode(m.body)[1]) for m in messages]
        [handed_over] = {
            (str(one.id), rfc3339(one.created_at)) for command in commands for one in command.orders
        }
        answer = msgspec.json.decode(accepted)
        assert handed_over == (answer["id"], answer["createdAt"])


@pytest.mark.usefixtures("broker_with_queue")
class TestWaitingToBeStored:
    def test_takes_no_connection_from_who_stores(self, client, product_service, monkeypatch):
        # As in a web process, whose threads share fewer connections than they are.
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
        commits = placement.intake()._keyed_commits
        submit, held = commits.submit, []

        def noting_submit(*arguments: Any, **options: Any) -> Outcome:
            held.append(connection.connection)
            return submit(*arguments, **options)

        monkeypatch.setattr(commits, "submit", noting_submit)

        assert order(client, product_service.add()).status_code == 201
        assert held == [None]


class TestAnAttemptThatFailed:
    """It may have left a claim; what it has not left is an order."""

    @pytest.mark.usefixtures("without_database", "without_broker")
    def test_is_no_order_and_no_promise(self, client, product_service):
        product_id = product_service.add()

        for _ in range(2):
            answer = order(client, product_id)
            assert (answer.status_code, answer.json()["code"]) == (503, "not_accepted")

    @pytest.mark.usefixtures("without_database", "broker_with_queue")
    def test_does_not_deny_the_one_before_it(self, client, product_service, monkeypatch):
        product_id = product_service.add()
        accepted = order(client, product_id)
        commits = placement.intake()._keyed_commits
        monkeypatch.setattr(commits, "submit", lambda *_, **__: Outcome.NOWHERE)
        answer = order(client, product_id)

        assert (accepted.status_code, answer.status_code) == (201, 503)
        assert answer.json()["code"] == "outcome_unknown"
        assert answer.json()["orderId"] == accepted.json()["id"]

    @pytest.mark.usefixtures("broker_with_queue")
    def test_is_made_good_by_the_next_one(self, client, product_service, accepted_order):
        product_id = product_service.add()
        facts = {"id": order_id_of(str(product_id)), "product_id": product_id, "total_price": 7}
        cache.claim_firsts([accepted_order(**facts)])

        answer = order(client, product_id)

        assert (answer.status_code, answer.json()["totalPrice"]) == (201, 7)
        assert str(Order.objects.get().id) == answer.json()["id"]

    @pytest.mark.usefixtures("broker_with_queue")
    def test_is_not_made_good_by_another_order(self, client, product_service, accepted_order):
        product_id = product_service.add()
        cache.claim_firsts([accepted_order(id=order_id_of(str(product_id)))])

        assert order(client, product_id).status_code == 422
        assert not Order.objects.exists()

    @pytest.mark.usefixtures("without_redis", "broker_with_queue")
    def test_is_stored_without_redis_though_the_database_was_away_a_moment_ago(
        self, client, product_service, monkeypatch
    ):
        product_id = product_service.add()
        just_failed = Breaker("the database", pause_seconds=60.0)
        with pytest.raises(OperationalError):
            just_failed.call(_fail, failures=(OperationalError,))
        monkeypatch.setattr(placement.intake()._keyed, "database", just_failed)

        first, second = (order(client, product_id) for _ in range(2))

        assert (first.status_code, first.content) == (201, second.content)

    @pytest.mark.usefixtures("without_database", "without_redis", "broker_with_queue")
    def test_is_refused_when_nobody_can_tell_who_was_first(self, client, product_service):
        answer = order(client, product_service.add())

        assert (answer.status_code, answer.json()["code"]) == (503, "not_accepted")


@pytest.mark.usefixtures("broker_with_queue")
class TestAnAcceptedOrderThatCannotBeAskedFor:
    """It is safe, and not known: the attempt at hand need not be the one that counts."""

    @staticmethod
    def assert_unknown(answer: Any, product_id: UUID) -> None:
        assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
        assert answer.json()["orderId"] == str(order_id_of(str(product_id)))

    def test_is_named_when_the_time_for_the_answer_is_over(
        self, client, product_service, monkeypatch
    ):
        product_id, looks = product_service.add(), []

        def look(order_id: UUID) -> None:
            looks.append(order_id)
            if len(looks) > 1:
                raise DeadlineExceeded

        monkeypatch.setattr(selectors, "find_stored_order", lambda _order_id: None)
        monkeypatch.setattr(cache, "get_first", look)

        self.assert_unknown(order(client, product_id), product_id)

    @pytest.mark.usefixtures("without_redis")
    def test_is_not_answered_as_it_was_asked_for(
        self, client, product_service, accepted_order, monkeypatch
    ):
        product_id = product_service.add(price=99)
        facts = {"id": order_id_of(str(product_id)), "product_id": product_id, "total_price": 20}
        services.place_orders([accepted_order(**facts)])
        find = selectors.find_stored_order
        monkeypatch.setattr(selectors, "find_stored_order", lambda _order_id: _fail())

        self.assert_unknown(order(client, product_id), product_id)
        monkeypatch.setattr(selectors, "find_stored_order", find)
        assert order(client, product_id).json()["totalPrice"] == 20

    @pytest.mark.usefixtures("without_database")
    def test_is_not_answered_when_its_claim_is_lost(self, client, product_service, monkeypatch):
        def lose(orders: Any) -> None:
            get_redis_connection("default").delete(*(f"order:{one.id}:first" for one in orders))

        monkeypatch.setattr(cache, "keep_firsts", lose)
        product_id = product_service.add()

        self.assert_unknown(order(client, product_id), product_id)


class TestClaimFirsts:
    def test_returns_what_was_claimed_first(self, accepted_order):
        first = accepted_order()
        second = msgspec.structs.replace(first, total_price=1)
        other = accepted_order()

        assert cache.claim_firsts([first]) == [first]
        assert cache.claim_firsts([second, other]) == [first, other]

    def test_does_not_prolong_the_claim_of_the_first(self, accepted_order):
        first = accepted_order()
        cache.claim_firsts([first])
        get_redis_connection("default").expire(f"order:{first.id}:first", 5)
        cache.claim_firsts([first])

        assert get_redis_connection("default").ttl(f"order:{first.id}:first") <= 5
