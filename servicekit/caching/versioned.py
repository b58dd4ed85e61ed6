"""Values that a slow reader cannot put back over a newer one.

The classical stale set: a reader misses and reads version 1 from the database; a writer commits
version 2 and caches it; the reader caches version 1. Here every write carries the version of the
row and loses against a newer one, in one atomic step in Redis.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from servicekit import metrics
from servicekit.caching.redis import (
    UNAVAILABLE,
    Script,
    Unavailable,
    best_effort,
    invalidate_when_back,
    read,
)

# Of 64 bits; anything else was not written by us, and the value beside it may be of any age.
_VERSION = re.compile(rb"[0-9]{1,19}")
_SET_IF_NEWER = Script(
    b"""
    for i = 1, #KEYS, 2 do
        local version, value = ARGV[i], ARGV[i + 1]
        -- Garbage is no number, and loses.
        local known = tonumber(redis.call('GET', KEYS[i + 1]) or '')
        if not known or not (known > tonumber(version)) then
            if value == '' then
                redis.call('DEL', KEYS[i])
            else
                redis.call('SET', KEYS[i], value, 'EX', ARGV[#ARGV])
            end
            redis.call('SET', KEYS[i + 1], version, 'EX', ARGV[#ARGV])
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

    def set_if_newer(self, values: Iterable[tuple[object, Versioned]]) -> None:
        """Store each value unless a newer version is stored; all in one round trip."""
        keys: list[str] = []
        args: list[object] = []
        for identity, versioned in values:
            key = f"{self._prefix}:{identity}"
            keys += [key, f"{key}:version"]
            args += [versioned.version, versioned.value]
        if keys:
            args.append(self._ttl_seconds)
            if (
                best_effort(lambda client: _SET_IF_NEWER(client, keys=keys, args=args))
                is UNAVAILABLE
            ):
                invalidate_when_back(keys[::2])
