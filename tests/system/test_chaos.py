"""Faults under load: a few of those that `make chaos` goes through, and shorter."""

import pytest

from deploy.native.stack import Stack
from tools.chaos import trial
from tools.chaos.faults import SERVERS, WEB, WORKERS, named

TELLING = (
    *(f"{part}-killed" for part in (*SERVERS, *WEB, *WORKERS)),
    "postgres-read-only",
    "redis-flushed",
    "rabbitmq-memory-alarm",
    "order.created-replayed",
    "stock.decided-replayed",
    "orders-worker-rabbitmq-cut",
    "products-worker-postgresql-black-hole",
)


@pytest.mark.parametrize("name", TELLING)
def test_what_was_promised_is_kept(stack: Stack, name: str) -> None:
    stack.wait_ready()
    result = trial.run(stack, named(name), seed=1, seconds=2, rate=30)

    assert result.accepted > 0
    assert result.broken == []
