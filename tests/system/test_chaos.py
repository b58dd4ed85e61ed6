"""Faults under load: a few of those that `make chaos` goes through, and shorter."""

import time
from dataclasses import replace
from uuid import uuid4

import pytest

from tools.chaos import trial
from tools.chaos.books import Findings, compare
from tools.chaos.client import Load
from tools.chaos.faults import SERVERS, WEB, WORKERS, named
from tools.chaos.harness import Harness
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
def load(stack: Harness) -> Load:
    """The books of a client whom nothing has happened to."""
    stack.wait_ready()
    with Load(stack.environment, rate=20, seed="1") as load:
        time.sleep(2)
        assert load.confirm_one(timeout_seconds=30)
    assert check_ledger(stack.environment).differences == []
    return load


def otherwise(**changes):
    return lambda answer: [replace(answer, body={**answer.body, **changes})]


class TestTheBooks:
    def test_agree_after_a_calm_load(self, stack, load):
        assert replace(compare(load, stack.environment), recovered=0) == Findings()

    @pytest.mark.parametrize(
        ("kind", "answered"),
        [
            ("lost", otherwise(id=str(uuid4()))),
            ("unexpected", lambda one: [replace(one, status=400)]),
            ("mismatch", otherwise(totalPrice=1)),
            ("doubled", lambda one: [one, *otherwise(id="x")(one)]),
        ],
    )
    def test_know_an_order_that_was_answered_otherwise(
        self, stack, load, monkeypatch, kind, answered
    ):
        order = next(each for each in load.orders if each.key is None and each.accepted)
        monkeypatch.setattr(order, "placed", answered(order.placed[0]))

        assert len(getattr(compare(load, stack.environment), kind)) == 1


@pytest.mark.parametrize("name", TELLING)
def test_what_was_promised_is_kept(stack: Harness, name: str) -> None:
    stack.wait_ready()
    result = trial.run(stack, named(name), seed=1, seconds=2, rate=30)

    assert result.accepted > 0
    assert result.broken == []
