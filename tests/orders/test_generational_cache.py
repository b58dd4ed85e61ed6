import time
from uuid import uuid4

import pytest
from django_redis import get_redis_connection

from orders_project.orders.generational_cache import GenerationalCache, RenderedPage


class TestGenerationalCache:
    @pytest.fixture
    def cache(self) -> GenerationalCache:
        return GenerationalCache(f"test-{uuid4()}", ttl_seconds=60)

    OLD, NEW = RenderedPage(b"[1]", ""), RenderedPage(b"[2,1]", "next")

    def test_renders_once_and_again_after_a_change(self, cache):
        rendered = iter([self.OLD, self.NEW])

        assert [cache.get_or_render(1, lambda: next(rendered)) for _ in range(3)] == [self.OLD] * 3
        cache.drop([1])
        assert cache.get_or_render(1, lambda: next(rendered)) == self.NEW

    @pytest.mark.parametrize("has_a_generation", [False, True])
    def test_does_not_store_what_changed_while_it_was_rendered(self, cache, has_a_generation):
        def stall() -> RenderedPage:
            # It never comes back to a generation that it had.
            get_redis_connection("default").delete(f"{cache._prefix}:1:generation")
            cache.drop([1])
            return self.OLD

        if has_a_generation:
            cache.drop([1])
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

        rendered = [cache.get_or_render(1, lambda: next(pages)) for _ in range(2)]
        assert rendered == [self.OLD, self.NEW]
