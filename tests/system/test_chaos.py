"""Faults under load: a few of those that `make chaos` goes through, and shorter."""

import time
from dataclasses import replace
from uuid import uuid4

import pytest

from deploy.native.stack import Stack
from tools.chaos import trial
from tools.chaos.books import Findings, compare
from tools.chaos.client import Load, Order
from tools.chaos.faults import SERVERS, WEB, WORKERS, named
from tools.ledger import check_ledger

TELLING = (
    *(f"{part}-killed" for part in (*SERVERS, *WEB, *WORKERS)),
    "postgres-read-only",
    "redis-flushed",
    "rabbitmq-memory-alarm",
    "order.created-replayed",
    "stock.decided-replayed",
    "orders-worker-rabbitmq-cut",
    "products-worker-postgresql-black-hole",
    "product-service-redis-slow",
)


@pytest.fixture(scope="module")
def load(stack: Stack) -> Load:
    """The books of a client whom nothing has happened to."""
    stack.wait_ready()
    with Load(stack.environment, rate=20, seed="1") as load:
        time.sleep(2)
        assert load.confirm_one(timeout_seconds=30)
    assert check_ledger(stack.environment).differences == []
    return load


class TestTheBooks:
    @pytest.fixture
    def order(self, load) -> Order:
        return next(each for each in load.orders if each.key is None and each.accepted)

    @pytest.fixture
    def found(self, stack, load, order, request) -> Findings:
        """What differs when one order was answered otherwise than it was."""
        answered = order.placed
        order.placed = request.param(answered[0])
        try:
            return compare(load, stack.environment)
        finally:
            order.placed = answered

    @staticmethod
    def otherwise(**changes):
        return lambda answer: [replace(answer, body={**answer.body, **changes})]

    def test_agree_after_a_calm_load(self, stack, load):
        assert replace(compare(load, stack.environment), recovered=0) == Findings()

    @pytest.mark.parametrize("found", [otherwise(id=str(uuid4()))], indirect=True)
    def test_know_a_lost_order(self, found):
        assert len(found.lost) == 1

    @pytest.mark.parametrize("found", [lambda one: [replace(one, status=400)]], indirect=True)
    def test_know_an_order_that_was_refused_and_is_stored(self, found):
        assert len(found.unexpected) == 1

    @pytest.mark.parametrize("found", [otherwise(totalPrice=1)], indirect=True)
    def test_know_an_order_that_is_stored_otherwise(self, found):
        assert len(found.mismatch) == 1

    @pytest.mark.parametrize(
        "found", [lambda one: [one, replace(one, body={**one.body, "id": "x"})]], indirect=True
    )
    def test_know_an_order_that_is_two(self, found):
        assert len(found.doubled) == 1


@pytest.mark.parametrize("name", TELLING)
def test_what_was_promised_is_kept(stack: Stack, name: str) -> None:
    stack.wait_ready()
    result = trial.run(stack, named(name), seed=1, seconds=2, rate=30)

    assert result.accepted > 0
    assert result.broken == []
