"""Which orders the API has refused, by product: what people wanted and did not get.

`refused:{n}` in Redis counts those of five minutes. A process collects them and tells them once a
second, so that a refused order pays for one addition, however many ask for what is sold out. What
a process that dies has not told, or Redis misses, is not counted.
"""

import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any
from uuid import UUID

from servicekit.caching.redis import UNAVAILABLE, Script, best_effort

SLICE_SECONDS = 300

_TOLD_EVERY_SECONDS = 1.0
# Which slice it is for is decided before Redis is asked, which may take so long.
_TOLD_LATE_SECONDS = 10
_SLICES = 12
# Products beyond these are counted together: a storm over a large catalogue must end somewhere.
_FIELDS_LIMIT = 1000

_ADD = Script(
    b"""
    local limit, ttl_seconds = tonumber(ARGV[1]), ARGV[2]
    local size = redis.call('HLEN', KEYS[1])
    for i = 3, #ARGV, 3 do
        local reason, product, count = unpack(ARGV, i, i + 2)
        local field = reason .. ':' .. product
        if size >= limit and redis.call('HEXISTS', KEYS[1], field) == 0 then
            field = reason .. ':'
        end
        redis.call('HINCRBY', KEYS[1], field, count)
        size = size + 1
    end
    redis.call('EXPIRE', KEYS[1], ttl_seconds)
    """
)

Refusals = Counter[tuple[str, UUID | None]]
"""Orders by reason and, where it was about one, product."""

_collected: Refusals = Counter()
_lock = threading.Lock()


def count(reason: str, product_id: UUID | None) -> None:
    """Count an order that was refused; `product_id` only of a product that there is."""
    with _lock:
        is_first = not _collected
        is_known = (reason, product_id) in _collected or len(_collected) < _FIELDS_LIMIT
        _collected[reason, product_id if is_known else None] += 1
    if is_first:
        timer = threading.Timer(_TOLD_EVERY_SECONDS, _tell)
        timer.daemon = True
        timer.start()


def slices(first: int) -> dict[int, Refusals] | None:
    """Return what was refused, by slice: those from `first` on that are not forgotten yet.

    The newest is still added to. None if Redis does not answer.
    """
    newest = _slice()
    numbers = range(max(first, newest - _SLICES + 1), newest + 1)

    def read(client: Any) -> list[dict[bytes, bytes]]:
        with client.pipeline(transaction=False) as pipeline:
            for number in numbers:
                pipeline.hgetall(f"refused:{number}")
            found: list[dict[bytes, bytes]] = pipeline.execute()
            return found

    found = best_effort(read)
    if found is UNAVAILABLE:
        return None
    told: dict[int, Refusals] = {number: Counter() for number in numbers}
    for number, each in zip(numbers, found, strict=True):
        for field, orders in each.items():
            with suppress(ValueError):  # somebody else's
                reason, _, product = field.decode().partition(":")
                told[number][reason, UUID(product) if product else None] += int(orders)
    return told


def is_over(number: int) -> bool:
    """Return whether nothing is added to a slice any more."""
    return time.time() > (number + 1) * SLICE_SECONDS + _TOLD_LATE_SECONDS


def _tell() -> None:
    with _lock:
        told = dict(_collected)
        _collected.clear()
    args: list[Any] = [_FIELDS_LIMIT, (_SLICES + 1) * SLICE_SECONDS]
    for (reason, product_id), orders in told.items():
        args += [reason, "" if product_id is None else str(product_id), orders]
    best_effort(lambda client: _ADD(client, keys=[f"refused:{_slice()}"], args=args))


def _slice() -> int:
    return int(time.time()) // SLICE_SECONDS
