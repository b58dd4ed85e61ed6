"""Values that a slow reader cannot put back over a newer one.

The classical stale set: a reader misses and reads version 1 from the database; a writer commits
version 2 and caches it; the reader caches version 1. Here every write carries the version of the
row and loses against a newer one, in one atomic step in Redis. A version stays longer than any
value that was read before it, so no stall is long enough to outlast it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from servicekit import metrics
from servicekit.caching.redis import (
    CLOCK_ALLOWANCE_SECONDS,
    UNAVAILABLE,
    Script,
    Unavailable,
    best_effort,
    expiry_ms,
    invalidate_when_back,
    read,
)

# Of 64 bits; anything else was not written by us, and the value beside it may be of any age.
_VERSION = re.compile(rb"[0-9]{1,19}")
_SET_IF_NEWER = Script(
    b"""
    local expires_at_ms, fence_seconds = unpack(ARGV, #KEYS + 1)
    for i = 1, #KEYS, 2 do
        local version, value = ARGV[i], ARGV[i + 1]
        -- Garbage is no number, and loses.
        local known = tonumber(redis.call('GET', KEYS[i + 1]) or '')
        if not known or not (known > tonumber(version)) then
            if value == '' then
                redis.call('DEL', KEYS[i])
            else
                redis.call('SET', KEYS[i], value, 'PXAT', expires_at_ms)
            end
            redis.call('SET', KEYS[i + 1], version, 'EX', fence_seconds)
        end
    end
    """
)


@dataclass(frozen=True, slots=True)
class Versioned:
    """A value and the version of the row that it was made from; no bytes are no value.

    A version without a value says that there is nothing to cache any more, and keeps a slow reader
    from putting back what there was before.
    """

    version: int
    value: bytes


class VersionedCache:
    """Rendered values under `<prefix>:<id>`, each with its version beside it under `…:version`."""

    def __init__(self, prefix: str, *, ttl_seconds: int) -> None:
        self._prefix = prefix
        self._lookups = metrics.Lookups(prefix)
        self._ttl_seconds = ttl_seconds

    def get(self, identity: object) -> Versioned | None:
        """Return the value, or None when there is none or Redis is away."""
        found = self._look(identity)
        if found is UNAVAILABLE:
            self._lookups.unavailable.inc()
            return None
        (self._lookups.miss if found is None else self._lookups.hit).inc()
        return found

    def peek(self, identity: object) -> Versioned | None:
        """Return the value, or None for who then calls `get`."""
        found = self._look(identity)
        if found is None or found is UNAVAILABLE:
            return None
        self._lookups.hit.inc()
        return found

    def _look(self, identity: object) -> Versioned | Unavailable | None:
        key = f"{self._prefix}:{identity}"
        answer = read(key, f"{key}:version")
        if answer is UNAVAILABLE:
            return UNAVAILABLE
        value, version = answer
        if value is None or version is None or not _VERSION.fullmatch(version):
            return None
        return Versioned(int(version), value)

    def set_if_newer(self, values: Iterable[tuple[object, Versioned]], *, read_at: float) -> None:
        """Store each value unless a newer version is stored; all in one round trip.

        `read_at` is a Unix time from before they were read, or committed: they last from then.
        """
        keys: list[str] = []
        args: list[object] = []
        for identity, versioned in values:
            key = f"{self._prefix}:{identity}"
            keys += [key, f"{key}:version"]
            args += [versioned.version, versioned.value]
        if keys:
            args.append(expiry_ms(read_at, self._ttl_seconds))
            args.append(self._ttl_seconds + CLOCK_ALLOWANCE_SECONDS)
            if (
                best_effort(lambda client: _SET_IF_NEWER(client, keys=keys, args=args))
                is UNAVAILABLE
            ):
                invalidate_when_back(keys[::2])
