"""Redis, bounded in time."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import gevent
import pytest
from gevent.thread import LockType

from servicekit.breaker import Breaker, CircuitOpen, open_breakers
from servicekit.caching import redis as our_redis
from servicekit.caching.redis import (
    UNAVAILABLE,
    best_effort,
    invalidate_outdated,
    invalidate_when_back,
)
from servicekit.http.deadline import DeadlineExceeded
from tests.servicekit.private_broker import eventually
from tools.chaos.proxy import Fault, Proxy


@pytest.fixture
def frozen_redis(settings, monkeypatch) -> Iterator[None]:
    """Somebody takes the connection and never says a word."""
    monkeypatch.setattr("servicekit.caching.redis._breaker", Breaker("it", pause_seconds=1.0))
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        address = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": address}}
        yield


def ping(client: object) -> bool:
    return client.ping()


class TestAttempt:
    def test_returns_what_redis_says(self):
        assert best_effort(ping) is True

    @pytest.mark.parametrize("away", ["without_redis", "frozen_redis"])
    def test_returns_unavailable_in_milliseconds_and_spares_the_next_callers_the_waiting(
        self, request, away
    ):
        request.getfixturevalue(away)
        for times, seconds in ((1, 0.5), (1000, 0.1)):
            started = time.monotonic()
            assert {best_effort(ping) for _ in range(times)} == {UNAVAILABLE}
            assert time.monotonic() - started < seconds

    @pytest.mark.usefixtures("without_redis")
    def test_finds_it_again_when_it_is_back(self, settings, monkeypatch):
        monkeypatch.setattr("servicekit.caching.redis._breaker", Breaker("it", pause_seconds=0.05))
        assert best_effort(ping) is UNAVAILABLE
        back = {**settings.CACHES["default"], "LOCATION": os.environ["CACHE_URL"]}
        settings.CACHES = {"default": back}
        time.sleep(0.06)

        assert best_effort(ping) is True


class TestLookups:
    def test_go_on_when_the_time_of_who_is_to_look_next_is_over(self, monkeypatch):
        monkeypatch.setattr(our_redis.threading, "Lock", LockType)
        lookups = our_redis._Lookups()
        lookups._is_led = True
        late = gevent.spawn(lookups.read, ["a"])
        gevent.sleep(0)

        def end_late_just_when_asked_to_look() -> None:
            lookups._hand_over()
            late.throw(DeadlineExceeded())

        gevent.get_hub().loop.run_callback(end_late_just_when_asked_to_look)
        with contextlib.suppress(DeadlineExceeded):
            late.get()

        with gevent.Timeout(5):
            assert lookups.read(["b"]) == [None]


class TestBreaker:
    """`fail` and `work` are calls that do; a spared one is not made."""

    @pytest.fixture
    def made(self) -> list[str]:
        return []

    @staticmethod
    def calling(does: Callable[[], object]) -> Callable[[Breaker], None]:
        def call(breaker: Breaker) -> None:
            with contextlib.suppress(OSError, CircuitOpen):
                breaker.call(does, failures=(OSError,))

        return call

    @pytest.fixture
    def fail(self, made) -> Callable[[Breaker], None]:
        def away() -> None:
            made.append("failed")
            raise OSError("nobody is there")

        return self.calling(away)

    @pytest.fixture
    def work(self, made) -> Callable[[Breaker], None]:
        return self.calling(lambda: made.append("worked"))

    def test_lets_everybody_through_while_all_is_well(self):
        breaker = Breaker("it", pause_seconds=60)

        assert [breaker.call(lambda: 7, failures=(OSError,)) for _ in range(5)] == [7] * 5

    def test_lets_nobody_through_after_a_failure(self, made, fail, work):
        breaker = Breaker("it", pause_seconds=60)
        fail(breaker)
        work(breaker)

        assert made == ["failed"]
        assert "it" in open_breakers()
        with pytest.raises(CircuitOpen, match="it was away a moment ago"):
            breaker.call(pytest.fail, failures=(OSError,))

    def test_lets_who_insists_through_and_believes_it(self, made, fail, work):
        breaker = Breaker("it", pause_seconds=60)
        fail(breaker)
        breaker.call(lambda: made.append("insisted"), failures=(OSError,), force=True)
        work(breaker)

        assert made == ["failed", "insisted", "worked"]

    def test_lets_one_try_after_the_pause(self, made, fail, work):
        breaker = Breaker("it", pause_seconds=0.05)
        fail(breaker)
        time.sleep(0.06)

        def meanwhile() -> None:
            # The others wait for the outcome of this one.
            work(breaker)
            made.append("tried")

        breaker.call(meanwhile, failures=(OSError,))
        work(breaker)
        assert made == ["failed", "tried", "worked"]

    def test_is_not_opened_by_what_is_no_failure(self, made, work):
        breaker = Breaker("it", pause_seconds=60)
        with pytest.raises(ZeroDivisionError):
            breaker.call(lambda: 1 / 0, failures=(OSError,))
        work(breaker)

        assert made == ["worked"]

    def test_says_once_that_it_is_away_and_once_that_it_is_back(self, fail, work, caplog):
        breaker = Breaker("it", pause_seconds=0)
        for call in (work, fail, fail, work, work):
            call(breaker)

        away = "it is away, going on without it: nobody is there"
        assert [record.getMessage() for record in caplog.records] == [away, "it is back"]


class TestAWriteThatRedisMissed:
    def test_is_made_good_the_next_time_when_redis_goes_once_more(self, settings, monkeypatch):
        monkeypatch.setattr(our_redis, "_breaker", Breaker("it", pause_seconds=0.0))
        with Proxy(settings.CACHES["default"]["LOCATION"]) as line:
            settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": line.url}}
            key = f"test-missed:{uuid4()}"
            eventually(lambda: best_effort(lambda client: client.set(key, b"old", ex=60)) is True)
            invalidate_when_back([key])
            # It answers the PING, and is gone before the UNLINK.
            fault = line.arm(Fault("cut before", 2, "client"))
            invalidate_outdated()
            eventually(fault.reached.is_set)

            assert key in our_redis._outdated
            eventually(lambda: best_effort(lambda client: client.get(key)) is None)
