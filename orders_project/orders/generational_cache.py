"""First pages of lists that a slow reader cannot put back after they have changed.

A list has no version of its own. Instead every change gives it a new generation, and a reader may
store what it read only if the generation is still the one from before the reading.
"""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from servicekit import metrics
from servicekit.caching.redis import (
    UNAVAILABLE,
    Script,
    Unavailable,
    best_effort,
    expiry_ms,
    invalidate_when_back,
    read,
)
from servicekit.identifiers import new_id

# What a URL takes as it is (RFC 3986, section 2.3); anything else was not written by us.
_CURSOR = re.compile(rb"[A-Za-z0-9._~-]*")
# Longer than any page that was read before the change can last.
_GENERATION_TTL_SECONDS = 3600

_SET_IF_SAME_GENERATION = Script(
    b"""
    if (redis.call('GET', KEYS[3]) or '') == ARGV[1] then
        redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[4])
        redis.call('SET', KEYS[2], ARGV[3], 'PXAT', ARGV[4])
    end
    """
)


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """A page as it is answered: the body, and the cursor of the page after it ("" for none)."""

    body: bytes
    next_cursor: str


class GenerationalCache:
    """Rendered first pages under `<prefix>:<id>`, cursor and generation in keys beside it."""

    def __init__(self, prefix: str, *, ttl_seconds: int) -> None:
        self._prefix = prefix
        self._lookups = metrics.Lookups(prefix)
        self._ttl_seconds = ttl_seconds

    def peek(self, identity: object) -> RenderedPage | None:
        """Return the stored page, or None for who then calls `get_or_render`."""
        page, _ = self._look(identity)
        if page is not None:
            self._lookups.hit.inc()
        return page

    def get_or_render(self, identity: object, render: Callable[[], RenderedPage]) -> RenderedPage:
        """Return the stored page; without one, render it, and store it unless it has changed."""
        stored, generation = self._look(identity)
        if stored is not None:
            self._lookups.hit.inc()
            return stored
        read_at = time.time()
        is_away = generation is UNAVAILABLE
        (self._lookups.unavailable if is_away else self._lookups.miss).inc()
        page = render()
        if generation is not UNAVAILABLE:
            keys = self._keys(identity)
            expires_at_ms = expiry_ms(read_at, self._ttl_seconds)
            args = [generation or b"", page.body, page.next_cursor, expires_at_ms]
            best_effort(lambda client: _SET_IF_SAME_GENERATION(client, keys=keys, args=args))
        return page

    def _keys(self, identity: object) -> list[str]:
        key = f"{self._prefix}:{identity}"
        return [key, f"{key}:next", f"{key}:generation"]

    def _look(self, identity: object) -> tuple[RenderedPage | None, bytes | Unavailable | None]:
        """Return the stored page, if there is one, and the generation of the list."""
        answer = read(*self._keys(identity))
        if answer is UNAVAILABLE:
            return None, UNAVAILABLE
        body, cursor, generation = answer
        next_cursor = _read(cursor)
        if body is None or next_cursor is None:
            return None, generation
        return RenderedPage(body, next_cursor), generation

    def drop(self, identities: Iterable[object]) -> None:
        """Forget lists that have changed, and refuse what was read before now."""
        keys = [f"{self._prefix}:{identity}" for identity in identities]
        # No number: counted again from 1 once it has expired, it would look the same.
        generation = new_id().hex

        def forget(client: Any) -> None:
            # One transaction: between the new generation and the forgetting no reader may store.
            with client.pipeline(transaction=True) as pipeline:
                for key in keys:
                    pipeline.set(f"{key}:generation", generation, ex=_GENERATION_TTL_SECONDS)
                    pipeline.delete(key, f"{key}:next")
                pipeline.execute()

        if keys and best_effort(forget) is UNAVAILABLE:
            invalidate_when_back(keys)


def _read(cursor: bytes | None) -> str | None:
    return None if cursor is None or not _CURSOR.fullmatch(cursor) else cursor.decode()
