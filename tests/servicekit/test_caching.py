"""Redis, bounded in time; and values that a slow reader cannot put back."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import gevent
import pytest
import redis
from django_redis import get_redis_connection
from gevent.thread import LockType

from servicekit.breaker import Breaker, CircuitOpen
from servicekit.caching import redis as our_redis
from servicekit.caching.generational import GenerationalCache, RenderedPage
from servicekit.caching.redis import (
    CLOCK_ALLOWANCE_SECONDS,
    UNAVAILABLE,
    best_effort,
    invalidate_outdated,
    invalidate_when_back,
)
from servicekit.caching.versioned import Versioned, VersionedCache
from servicekit.http.deadline import DeadlineExceeded
from tests.servicekit.private_broker import eventually
from tools.chaos.proxy import Fault, Proxy


def keep(cache: VersionedCache, *values: tuple[object, Versioned], seconds_ago: float = 0) -> None:
    """Store values that were read so long ago."""
    cache.set_if_newer(values, read_at=time.time() - seconds_ago)


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
    def test_returns_unavailable_in_milliseconds_when_it_says_nothing(self, request, away):
        request.getfixturevalue(away)
        started = time.monotonic()

        assert best_effort(ping) is UNAVAILABLE
        assert time.monotonic() - started < 0.5

    @pytest.mark.usefixtures("frozen_redis")
    def test_spares_the_next_callers_the_waiting(self):
        best_effort(ping)
        started = time.monotonic()
        for _ in range(1000):
            assert best_effort(ping) is UNAVAILABLE

        assert time.monotonic() - started < 0.1

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

    @pytest.fixture
    def fail(self, made) -> Callable[[Breaker], None]:
        def away() -> None:
            made.append("failed")
            raise OSError("nobody is there")

        def call(breaker: Breaker) -> None:
            with contextlib.suppress(OSError, CircuitOpen):
                breaker.call(away, failures=(OSError,))

        return call

    @pytest.fixture
    def work(self, made) -> Callable[[Breaker], None]:
        def call(breaker: Breaker) -> None:
            with contextlib.suppress(CircuitOpen):
                breaker.call(lambda: made.append("worked"), failures=(OSError,))

        return call

    def test_lets_everybody_through_while_all_is_well(self, made, work):
        breaker = Breaker("it", pause_seconds=60)
        for _ in range(5):
            work(breaker)

        assert made == ["worked"] * 5

    def test_returns_what_the_call_returns(self):
        assert Breaker("it", pause_seconds=60).call(lambda: 7, failures=(OSError,)) == 7

    def test_lets_nobody_through_after_a_failure(self, made, fail, work):
        breaker = Breaker("it", pause_seconds=60)
        fail(breaker)
        work(breaker)

        assert made == ["failed"]
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

        assert [record.getMessage() for record in caplog.records] == [
            "it is away, going on without it: nobody is there",
            "it is back",
        ]


class TestVersionedCache:
    @pytest.fixture
    def cache(self) -> VersionedCache:
        return VersionedCache(f"test-{uuid4()}", ttl_seconds=60)

    def test_gives_back_what_was_stored(self, cache):
        keep(cache, (1, Versioned(1, b"one")), (2, Versioned(5, b"two")))

        assert cache.get(1) == Versioned(1, b"one")
        assert cache.get(2) == Versioned(5, b"two")
        assert cache.get(3) is None

    @pytest.mark.parametrize(("second", "kept"), [(1, b"first"), (2, b"second"), (3, b"second")])
    def test_keeps_the_newer_of_two(self, cache, second, kept):
        keep(cache, (1, Versioned(2, b"first")))
        keep(cache, (1, Versioned(second, b"second")))

        assert cache.get(1).value == kept

    @pytest.mark.parametrize("version", [9, 10])
    def test_compares_versions_as_numbers(self, cache, version):
        keep(cache, (1, Versioned(version, b"old")))
        keep(cache, (1, Versioned(version + 1, b"new")))
        keep(cache, (1, Versioned(version, b"old")))

        assert cache.get(1) == Versioned(version + 1, b"new")

    def test_keeps_what_is_gone_from_coming_back(self, cache):
        keep(cache, (1, Versioned(1, b"one")))
        keep(cache, (1, Versioned(2, b"")))
        assert cache.get(1) is None

        keep(cache, (1, Versioned(1, b"one")))
        assert cache.get(1) is None

    def test_does_not_last_for_ever(self, cache):
        keep(cache, (1, Versioned(1, b"one")))

        redis = get_redis_connection("default")
        assert 0 < redis.ttl(f"{cache._prefix}:1") <= 60
        # Longer than what it keeps out, also by a clock that is a little ahead.
        assert 60 < redis.ttl(f"{cache._prefix}:1:version") <= 60 + CLOCK_ALLOWANCE_SECONDS

    @pytest.mark.parametrize(("stalled_seconds", "is_back"), [(30, True), (61, False)])
    def test_lets_no_reader_put_back_what_is_older_than_the_ttl(
        self, cache, stalled_seconds, is_back
    ):
        # Nothing is left of what was written meanwhile. The one that is quicker would be refused
        # by the version, which stays that long.
        keep(cache, (1, Versioned(1, b"old")), seconds_ago=stalled_seconds)

        assert (cache.get(1) is not None) == is_back
        assert get_redis_connection("default").ttl(f"{cache._prefix}:1") <= 30

    @pytest.mark.parametrize(
        "garbage", [b"", b"garbage", b"-1", b"1.5", b"1_0", b" 1", b"nan", b"\xff", b"9" * 5000]
    )
    def test_has_nothing_where_the_version_is_garbage(self, cache, garbage):
        keep(cache, (1, Versioned(1, b"one")))
        get_redis_connection("default").set(f"{cache._prefix}:1:version", garbage)

        assert cache.get(1) is None

    @pytest.mark.parametrize("garbage", [b"", b"garbage", b"nan", b"\xff"])
    def test_takes_what_is_read_anew_where_the_version_is_garbage(self, cache, garbage):
        get_redis_connection("default").set(f"{cache._prefix}:1:version", garbage)
        keep(cache, (1, Versioned(1, b"one")))

        assert cache.get(1) == Versioned(1, b"one")

    @pytest.mark.usefixtures("without_redis")
    def test_is_empty_without_redis(self, cache):
        keep(cache, (1, Versioned(1, b"one")))

        assert cache.get(1) is None


class TestGenerationalCache:
    @pytest.fixture
    def cache(self) -> GenerationalCache:
        return GenerationalCache(f"test-{uuid4()}", ttl_seconds=60)

    OLD, NEW = RenderedPage(b"[1]", ""), RenderedPage(b"[2,1]", "next")

    def test_renders_once(self, cache):
        rendered = iter([self.NEW])

        assert [cache.get_or_render(1, lambda: next(rendered)) for _ in range(3)] == [self.NEW] * 3

    def test_renders_again_after_a_change(self, cache):
        cache.get_or_render(1, lambda: self.OLD)
        cache.drop([1])

        assert cache.get_or_render(1, lambda: self.NEW) == self.NEW

    def test_does_not_store_what_changed_while_it_was_rendered(self, cache):
        def stall() -> RenderedPage:
            cache.drop([1])
            return self.OLD

        assert cache.get_or_render(1, stall) == self.OLD
        assert cache.get_or_render(1, lambda: self.NEW) == self.NEW

    @pytest.mark.parametrize("changed_before", [False, True])
    def test_does_not_store_what_was_rendered_longer_ago_than_it_lasts(
        self, cache, monkeypatch, changed_before
    ):
        if changed_before:
            cache.drop([1])
        monkeypatch.setattr(cache, "_ttl_seconds", 1)

        def stall() -> RenderedPage:
            cache.drop([1])
            # As if it took so long that the generation of that change has expired, too.
            get_redis_connection("default").delete(f"{cache._prefix}:1:generation")
            time.sleep(1.1)
            return self.OLD

        assert cache.get_or_render(1, stall) == self.OLD
        assert cache.get_or_render(1, lambda: self.NEW) == self.NEW

    def test_never_comes_back_to_a_generation(self, cache):
        def stall() -> RenderedPage:
            get_redis_connection("default").delete(f"{cache._prefix}:1:generation")
            cache.drop([1])
            return self.OLD

        cache.drop([1])
        assert cache.get_or_render(1, stall) == self.OLD
        assert cache.get_or_render(1, lambda: self.NEW) == self.NEW

    def test_keeps_lists_apart(self, cache):
        cache.get_or_render(1, lambda: self.OLD)
        cache.get_or_render(2, lambda: self.NEW)
        cache.drop([2])

        assert cache.get_or_render(1, lambda: self.NEW) == self.OLD

    @pytest.mark.parametrize("garbage", [b"\xff\xfe", "n\u00e4chste".encode(), b"a b", b"a\r\nb"])
    def test_renders_again_where_the_cursor_is_garbage(self, cache, garbage):
        cache.get_or_render(1, lambda: self.OLD)
        get_redis_connection("default").set(f"{cache._prefix}:1:next", garbage)

        assert [cache.get_or_render(1, lambda: self.NEW) for _ in range(2)] == [self.NEW] * 2

    @pytest.mark.usefixtures("without_redis")
    def test_renders_every_time_without_redis(self, cache):
        cache.drop([1])
        pages = iter([self.OLD, self.NEW])

        assert [cache.get_or_render(1, lambda: next(pages)) for _ in range(2)] == [
            self.OLD,
            self.NEW,
        ]


class TestAWriteThatRedisMissed:
    @pytest.mark.usefixtures("without_redis")
    def test_is_made_good_when_redis_is_back(self, settings):
        # Redis holds what was true before; we learn of a change while it is away.
        cache = VersionedCache("test-missed", ttl_seconds=60)
        identity = uuid4()
        there = redis.Redis.from_url(os.environ["CACHE_URL"], protocol=2)
        there.set(f"test-missed:{identity}", b"old", ex=60)
        there.set(f"test-missed:{identity}:version", b"1", ex=60)

        keep(cache, (identity, Versioned(2, b"new")))
        settings.CACHES = {
            "default": {**settings.CACHES["default"], "LOCATION": os.environ["CACHE_URL"]}
        }
        deadline = time.monotonic() + 5
        while there.get(f"test-missed:{identity}") and time.monotonic() < deadline:
            time.sleep(0.05)
            invalidate_outdated()

        assert there.get(f"test-missed:{identity}") is None
        there.delete(f"test-missed:{identity}:version")
        there.close()

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
