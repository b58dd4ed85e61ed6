"""Redis, bounded in time; and values that a slow reader cannot put back."""

import os
import socket
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis
from django_redis import get_redis_connection

from servicekit.breaker import Breaker
from servicekit.caching.generational import GenerationalCache, RenderedPage
from servicekit.caching.redis import UNAVAILABLE, attempt, forget_outdated
from servicekit.caching.versioned import Versioned, VersionedCache


@pytest.fixture
def frozen_redis(settings, monkeypatch) -> Iterator[None]:
    """Somebody takes the connection and never says a word."""
    monkeypatch.setattr("servicekit.caching.redis._breaker", Breaker(pause_seconds=1.0))
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        address = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": address}}
        yield


def ping(client: object) -> bool:
    return client.ping()


class TestAttempt:
    def test_returns_what_redis_says(self):
        assert attempt(ping) is True

    @pytest.mark.parametrize("away", ["without_redis", "frozen_redis"])
    def test_returns_unavailable_in_milliseconds_when_it_says_nothing(self, request, away):
        request.getfixturevalue(away)
        started = time.monotonic()

        assert attempt(ping) is UNAVAILABLE
        assert time.monotonic() - started < 0.5

    @pytest.mark.usefixtures("frozen_redis")
    def test_spares_the_next_callers_the_waiting(self):
        attempt(ping)
        started = time.monotonic()
        for _ in range(1000):
            assert attempt(ping) is UNAVAILABLE

        assert time.monotonic() - started < 0.1

    @pytest.mark.usefixtures("without_redis")
    def test_finds_it_again_when_it_is_back(self, settings, monkeypatch):
        monkeypatch.setattr("servicekit.caching.redis._breaker", Breaker(pause_seconds=0.05))
        assert attempt(ping) is UNAVAILABLE
        back = {**settings.CACHES["default"], "LOCATION": os.environ["CACHE_URL"]}
        settings.CACHES = {"default": back}
        time.sleep(0.06)

        assert attempt(ping) is True


class TestBreaker:
    def test_lets_everybody_through_while_all_is_well(self):
        breaker = Breaker(pause_seconds=60)

        assert all(breaker.admits() for _ in range(5))

    def test_lets_nobody_through_after_a_failure(self):
        breaker = Breaker(pause_seconds=60)

        assert breaker.failed()
        assert not any(breaker.admits() for _ in range(5))

    def test_lets_one_try_after_the_pause(self):
        breaker = Breaker(pause_seconds=0.05)
        breaker.failed()
        time.sleep(0.06)

        assert [breaker.admits() for _ in range(5)] == [True, False, False, False, False]

    def test_lets_everybody_through_after_a_success(self):
        breaker = Breaker(pause_seconds=60)
        breaker.failed()

        assert breaker.succeeded()
        assert all(breaker.admits() for _ in range(5))

    def test_says_which_failure_and_which_success_is_news(self):
        breaker = Breaker(pause_seconds=60)

        assert [breaker.succeeded(), breaker.failed(), breaker.failed()] == [False, True, False]
        assert [breaker.succeeded(), breaker.succeeded()] == [True, False]


class TestVersionedCache:
    @pytest.fixture
    def cache(self) -> VersionedCache:
        return VersionedCache(f"test-{uuid4()}", ttl_seconds=60)

    def test_gives_back_what_was_stored(self, cache):
        cache.set_if_newer([(1, Versioned(1, b"one")), (2, Versioned(5, b"two"))])

        assert cache.get(1) == Versioned(1, b"one")
        assert cache.get(2) == Versioned(5, b"two")
        assert cache.get(3) is None

    @pytest.mark.parametrize(("second", "kept"), [(1, b"first"), (2, b"second"), (3, b"second")])
    def test_keeps_the_newer_of_two(self, cache, second, kept):
        cache.set_if_newer([(1, Versioned(2, b"first"))])
        cache.set_if_newer([(1, Versioned(second, b"second"))])

        assert cache.get(1).value == kept

    @pytest.mark.parametrize("version", [9, 10])
    def test_compares_versions_as_numbers(self, cache, version):
        cache.set_if_newer([(1, Versioned(version, b"old"))])
        cache.set_if_newer([(1, Versioned(version + 1, b"new"))])
        cache.set_if_newer([(1, Versioned(version, b"old"))])

        assert cache.get(1) == Versioned(version + 1, b"new")

    def test_keeps_what_is_gone_from_coming_back(self, cache):
        cache.set_if_newer([(1, Versioned(1, b"one"))])
        cache.set_if_newer([(1, Versioned(2, b""))])
        assert cache.get(1) is None

        cache.set_if_newer([(1, Versioned(1, b"one"))])
        assert cache.get(1) is None

    def test_does_not_last_for_ever(self, cache):
        cache.set_if_newer([(1, Versioned(1, b"one"))])

        redis = get_redis_connection("default")
        assert 0 < redis.ttl(f"{cache._prefix}:1") <= 60
        assert 0 < redis.ttl(f"{cache._prefix}:1:version") <= 60

    @pytest.mark.usefixtures("without_redis")
    def test_is_empty_without_redis(self, cache):
        cache.set_if_newer([(1, Versioned(1, b"one"))])

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

    def test_keeps_lists_apart(self, cache):
        cache.get_or_render(1, lambda: self.OLD)
        cache.get_or_render(2, lambda: self.NEW)
        cache.drop([2])

        assert cache.get_or_render(1, lambda: self.NEW) == self.OLD

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

        cache.set_if_newer([(identity, Versioned(2, b"new"))])
        settings.CACHES = {
            "default": {**settings.CACHES["default"], "LOCATION": os.environ["CACHE_URL"]}
        }
        deadline = time.monotonic() + 5
        while there.get(f"test-missed:{identity}") and time.monotonic() < deadline:
            time.sleep(0.05)
            forget_outdated()

        assert there.get(f"test-missed:{identity}") is None
        there.delete(f"test-missed:{identity}:version")
        there.close()
