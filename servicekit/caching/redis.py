"""Redis, bounded in time: slow or gone, it costs milliseconds and never raises.

Every caller here treats 'Redis is away' as a value, `UNAVAILABLE` or False, because every
caller must have another way.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, Final, TypeVar

import redis
from django_redis import get_redis_connection

from servicekit.breaker import Breaker, CircuitOpen

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Unavailable(Enum):
    """The type of `UNAVAILABLE`."""

    UNAVAILABLE = "unavailable"


UNAVAILABLE: Final = Unavailable.UNAVAILABLE
"""What a call gives instead of an answer when Redis has none in time."""


_FAILURES = (redis.RedisError, OSError)
_breaker = Breaker("Redis", pause_seconds=1.0)


def best_effort(call: Callable[[Any], T]) -> T | Unavailable:
    """Return what `call` gets from Redis, or `UNAVAILABLE`."""

    def ask() -> T | redis.ResponseError:
        try:
            return call(get_redis_connection("default"))
        except redis.ResponseError as error:
            # It answers: one key of another type than ours must not keep everybody from the others.
            return error

    try:
        answer = _breaker.call(ask, failures=_FAILURES)
    except (CircuitOpen, *_FAILURES):
        return UNAVAILABLE
    if isinstance(answer, redis.ResponseError):
        _warn_once(str(answer))
        return UNAVAILABLE
    if _outdated:
        _invalidate_outdated()
    return answer


@lru_cache(maxsize=16)
def _warn_once(refusal: str) -> None:
    logger.warning("Redis refuses: %s", refusal)


class _Lookup:
    """Somebody who waits for the values of some keys."""

    __slots__ = ("done", "keys", "leads", "values")

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys
        self.values: list[bytes | None] | Unavailable | None = None
        self.leads = False
        self.done = threading.Lock()
        self.done.acquire()


class _Lookups:
    """Gives all who ask while one MGET is on its way the next one together.

    A call to Redis costs a web process more than all else that a cached answer takes; one of
    several keys costs hardly more than one of one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Lookup] = []
        self._is_led = False

    def read(self, keys: Sequence[str]) -> list[bytes | None] | Unavailable:
        mine = _Lookup(keys)
        with self._lock:
            self._waiting.append(mine)
            mine.leads = not self._is_led
            self._is_led = True
        try:
            if not mine.leads:
                mine.done.acquire()
            if mine.values is None:
                self._lead()
        finally:
            if mine.values is None:
                # Given up before anybody has looked; perhaps just when it was its turn to lead.
                with self._lock:
                    if mine in self._waiting:
                        self._waiting.remove(mine)
            if mine.leads:
                self._hand_over()
        assert mine.values is not None  # noqa: S101 - `_lead` has answered, or raised
        return mine.values

    def _lead(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting[:_LOOKUPS_LIMIT], self._waiting[_LOOKUPS_LIMIT:]
        keys = [key for each in batch for key in each.keys]
        values: list[bytes | None] | Unavailable = UNAVAILABLE
        try:
            values = best_effort(lambda client: client.mget(keys))
        finally:
            start = 0
            for each in batch:
                end = start + len(each.keys)
                each.values = values if values is UNAVAILABLE else values[start:end]
                start = end
                if not each.leads:
                    each.done.release()

    def _hand_over(self) -> None:
        with self._lock:
            self._is_led = bool(self._waiting)
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].done.release()


_LOOKUPS_LIMIT = 200
_lookups = _Lookups()


def read(*keys: str) -> list[bytes | None] | Unavailable:
    """Return the values of keys, None for each that there is not, or `UNAVAILABLE`."""
    return _lookups.read(keys)


# Keys that hold, for all we know, what was true before a write that Redis missed.
_outdated: set[str] = set()
_OUTDATED_LIMIT = 100_000


def invalidate_when_back(keys: Iterable[str]) -> None:
    """Have keys deleted as soon as Redis is back, because it has missed a write to them.

    Redis may come back with what it had, and a process that was quicker to notice may have filled
    it again. This process remembers it as long as it lives; beyond that, the TTL is the bound.
    """
    if len(_outdated) < _OUTDATED_LIMIT:
        _outdated.update(keys)


def invalidate_outdated() -> None:
    """Try to delete the outdated keys now; for a process that may have no other call to make."""
    if _outdated:
        best_effort(lambda client: client.ping())


def _invalidate_outdated() -> None:
    keys = list(_outdated)
    _outdated.difference_update(keys)
    try:
        get_redis_connection("default").unlink(*keys)
    except _FAILURES:
        invalidate_when_back(keys)


class Script:
    """A Lua script, sent to a server once and called by its digest afterwards."""

    def __init__(self, source: bytes) -> None:
        # redis-py's own, which the client is handed to with each call.
        self._script = redis.commands.core.Script(None, source)  # type: ignore[arg-type]  # None: see above

    def __call__(self, client: Any, *, keys: list[str], args: list[Any]) -> Any:
        """Run it on a client."""
        return self._script(keys=keys, args=args, client=client)
