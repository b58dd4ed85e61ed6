import os
import time
from uuid import uuid4

import pytest
import redis
from django_redis import get_redis_connection

from products_project.products.versioned_cache import Versioned, VersionedCache
from servicekit.caching.redis import CLOCK_ALLOWANCE_SECONDS, invalidate_outdated
from tests.servicekit.private_broker import eventually


def keep(cache: VersionedCache, *values: tuple[object, Versioned], seconds_ago: float = 0) -> None:
    """Store values that were read so long ago."""
    cache.set_if_newer(values, read_at=time.time() - seconds_ago)


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
        eventually(lambda: invalidate_outdated() or not there.exists(f"test-missed:{identity}"))
        there.delete(f"test-missed:{identity}:version")
        there.close()
