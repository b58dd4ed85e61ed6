"""The keys that a process knows: asked for them, it hardly ever asks the database.

All keys that are good are read together, at most once in `REFRESH_SECONDS`; that is how long a
revoked one is still taken. One that is not among them is looked for once a second at most, whoever
shows how many. While the database is away, what was known last goes on for `KEEP_SECONDS`.
"""

import hmac
import math
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

REFRESH_SECONDS = 10.0
KEEP_SECONDS = 3600.0
_RETRY_SECONDS = 1.0

_KEY = re.compile("(?P<prefix>shop_[0-9a-f]{12})_[A-Za-z0-9_-]{43}")


class KeysUnavailable(Exception):
    """Whether a key is good cannot be said now: the database is away."""


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key as its checks need it; the prefix is its name for everybody."""

    prefix: str
    digest: bytes
    scopes: frozenset[str]
    name: str


def new_key() -> str:
    """Return a key that nobody else has: a prefix to know it by, and 256 random bits."""
    return f"shop_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"


def prefix_of(key: str) -> str | None:
    """Return the part of a key that is no secret; None of what is no key."""
    matched = _KEY.fullmatch(key)
    return matched["prefix"] if matched else None


def digest_of(key: str) -> bytes:
    """Return what is kept of a key."""
    return sha256(key.encode()).digest()


class KnownKeys:
    """The keys that are good, as far as this process knows."""

    def __init__(
        self,
        read: Callable[[], Mapping[str, KnownKey] | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read keys with `read`, which returns None when the database is away, and soon."""
        self._read = read
        self._clock = clock
        self._keys: Mapping[str, KnownKey] = {}
        self._read_at = self._tried_at = -math.inf
        self._is_away = False
        self._lock = threading.Lock()

    def find(self, key: str) -> KnownKey | None:
        """Return what is known of a key; None if it is none, or was revoked.

        :raises KeysUnavailable: if that cannot be said now
        """
        prefix = prefix_of(key)
        if prefix is None:
            return None
        is_known = prefix in self._keys and not self._is_away
        self._refresh(REFRESH_SECONDS if is_known else _RETRY_SECONDS)
        if self._clock() - self._read_at > KEEP_SECONDS:
            raise KeysUnavailable
        found = self._keys.get(prefix)
        if found is None and self._is_away:
            raise KeysUnavailable  # it may be a new one
        if found is None or not hmac.compare_digest(found.digest, digest_of(key)):
            return None
        return found

    def _refresh(self, pause_seconds: float) -> None:
        """Read the keys anew, unless that was tried so short a time ago."""
        if self._clock() - self._tried_at < pause_seconds:
            return
        # Who comes while one reads waits for what he reads; but not again and again for a database
        # that has just been away.
        if not self._lock.acquire(blocking=not self._is_away):
            return
        try:
            now = self._clock()
            if now - self._tried_at >= pause_seconds:
                keys = self._read()
                self._tried_at = self._clock()
                self._is_away = keys is None
                if keys is not None:
                    self._keys, self._read_at = keys, now
        finally:
            self._lock.release()
