"""Rate limits, counted in Redis for all processes together; without Redis nobody is kept out.

A token bucket for each caller: `600/minute` are 600 requests at once, and ten more each second. A
process takes tokens for a second in advance from a busy caller's bucket, twice as many each time,
so that a call to Redis is made for one request in many; it asks nothing about whom it has refused.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Optional

from django.core.exceptions import ImproperlyConfigured

from servicekit.caching.redis import UNAVAILABLE, Script, best_effort

_LIMIT = re.compile("(?P<requests>[1-9][0-9]{0,8})/(?P<period>second|minute|hour|day)")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

_LEASE_SECONDS = 1.0
# Of a limit, what one process may have taken and not used: a fiftieth.
_LEASES_PER_LIMIT = 50
_LEASES_LIMIT = 10_000

_TAKE = Script(
    b"""
    local limit, period, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
    local time = redis.call('TIME')
    local now = time[1] * 1000 + time[2] / 1000
    local each = period / limit
    -- When the bucket will be full again; whatever the clock did, no later than if it were empty.
    local full_at = tonumber(redis.call('GET', KEYS[1])) or now
    full_at = math.min(math.max(full_at, now), now + period)
    local granted = math.min(wanted, math.floor((now + period - full_at) / each + 0.001))
    if granted < 1 then
        return {0, math.ceil(full_at + each - now - period)}
    end
    full_at = full_at + granted * each
    redis.call('SET', KEYS[1], string.format('%.3f', full_at), 'PX', math.ceil(full_at - now))
    return {granted, 0}
    """
)


@dataclass(frozen=True)
class RateLimit:
    """So many requests in so many seconds."""

    requests: int
    seconds: int

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, text: str) -> Optional["RateLimit"]:
        """Return the limit in `600/minute`; None in an empty text.

        :raises ImproperlyConfigured: if there is none in it
        """
        if not text:
            return None
        matched = _LIMIT.fullmatch(text)
        if matched is None:
            raise ImproperlyConfigured(
                f"{text!r} is no rate limit: 600/minute is one (second, minute, hour or day)."
            )
        return cls(int(matched["requests"]), _SECONDS[matched["period"]])


@dataclass(slots=True)
class _Lease:
    """Tokens that this process has taken; a size of 0 is a refusal."""

    size: int = 0
    tokens: int = 0
    ends_at: float = 0.0
    is_asking: bool = False


class Limiter:
    """Lets callers pass while they keep to their limit."""

    def __init__(self, space: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Count in keys that begin with `rate:{space}:`."""
        self._space = space
        self._clock = clock
        self._leases: dict[str, _Lease] = {}

    def seconds_to_wait(self, caller: str, limit: RateLimit) -> float:
        """Count a request; return 0 if it may pass, else when the next one may."""
        now = self._clock()
        lease = self._leases.get(caller)
        if lease is None:
            if len(self._leases) >= _LEASES_LIMIT:
                # Costs what was taken and not used, and a question about each.
                self._leases.clear()
            lease = self._leases[caller] = _Lease()
        if now < lease.ends_at:
            if lease.tokens > 0:
                lease.tokens -= 1
                return 0.0
            if not lease.size:
                return lease.ends_at - now
        return self._take(caller, lease, limit, now)

    def _take(self, caller: str, lease: _Lease, limit: RateLimit, now: float) -> float:
        if now >= lease.ends_at:
            lease.tokens = lease.size = 0
        # Whoever comes while one asks for many needs no more than its own.
        leads = not lease.is_asking
        wanted = min(max(lease.size * 2, 1), max(limit.requests // _LEASES_PER_LIMIT, 1))
        args = [limit.requests, limit.seconds * 1000, wanted if leads else 1]
        key = f"rate:{self._space}:{caller}"
        lease.is_asking = True
        try:
            answer = best_effort(lambda client: _TAKE(client, keys=[key], args=args))
        finally:
            if leads:
                lease.is_asking = False
        if answer is UNAVAILABLE:
            return 0.0
        granted, wait_ms = answer
        seconds = _LEASE_SECONDS if granted else wait_ms / 1000
        if leads or not granted:
            lease.size, lease.ends_at = granted, now + seconds
        lease.tokens += max(granted - 1, 0)
        return 0.0 if granted else seconds
