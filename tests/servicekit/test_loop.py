"""A thread that looks for work in the database, through all that can go wrong."""

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from django.db import OperationalError, connection

from servicekit.database.loop import Loop
from servicekit.messaging.backoff import Backoff
from servicekit.messaging.connections import BrokerUnavailable
from tests.servicekit.interleaving import lose_connections
from tests.servicekit.private_broker import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def start(monkeypatch) -> Iterator[Callable[..., Loop]]:
    """Return a function that starts a loop, with short pauses after errors."""
    monkeypatch.setattr(Backoff, "next_seconds", lambda _backoff: 0.02)
    started: list[Loop] = []

    def start_one(work: Callable[[], object], **facts: object) -> Loop:
        loop = Loop("it", work, **facts)
        started.append(loop)
        loop.start()
        return loop

    yield start_one
    for loop in started:
        loop.stop()
        eventually(partial(has_ended, loop))


def has_ended(loop: Loop) -> bool:
    # It does not hear a bell that rings while it connects anew.
    if loop._bell:
        ring(loop._bell)
    loop.join(0.05)
    return not loop.is_alive()


def ring(bell: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"NOTIFY {bell}")


class Calls:
    """Counts how often it is called; finds something, or fails, as it is told."""

    def __init__(self, *outcomes: object) -> None:
        self.count = 0
        self._outcomes = iter(outcomes)

    def __call__(self) -> object:
        self.count += 1
        outcome = next(self._outcomes, 0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class TestLoop:
    def test_goes_on_at_once_while_it_finds_something(self, start):
        work = Calls(500, 500, 3)
        start(work, every_seconds=60)

        eventually(lambda: work.count == 4)

    def test_looks_again_after_a_pause(self, start):
        work = Calls()
        start(work, every_seconds=0.01)

        eventually(lambda: work.count >= 3)

    def test_is_woken_by_its_bell(self, start):
        work = Calls()
        start(work, every_seconds=60, bell="of_this_test")
        eventually(lambda: work.count == 1)

        def is_woken() -> bool:
            # Again and again: it may not have begun to listen.
            ring("of_this_test")
            return work.count > 1

        eventually(is_woken)

    @pytest.mark.parametrize("bell", [None, "of_this_test"])
    @pytest.mark.parametrize(
        "error", [OperationalError("away"), BrokerUnavailable("away"), ZeroDivisionError("a bug")]
    )
    def test_comes_back_after_any_error(self, start, error, bell):
        work = Calls(error, error, 1)
        loop = start(work, every_seconds=60, bell=bell)

        eventually(lambda: work.count == 4)
        assert loop.is_alive()

    def test_listens_again_on_a_new_connection(self, start):
        work = Calls()
        start(work, every_seconds=60, bell="of_this_test")
        eventually(lambda: work.count == 1)
        lose_connections()
        # Losing it is reason enough to look.
        eventually(lambda: work.count == 2)
        ring("of_this_test")

        def is_woken() -> bool:
            ring("of_this_test")
            return work.count > 2

        eventually(is_woken)

    def test_ends_soon_when_it_is_asked_to(self, start):
        is_working = threading.Event()

        def work() -> int:
            is_working.set()
            return 1

        loop = start(work, every_seconds=60)
        assert is_working.wait(5)
        loop.stop()
        loop.join(1)

        assert not loop.is_alive()
