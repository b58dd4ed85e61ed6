"""`catalog:{productId}` in Redis: our own copy of what the product service sells.

It lets orders be priced without a call per order, and while the product service is down. It is
kept up to date by two kinds of news that overtake each other: the state of a product as a whole,
and what an order left of it. Each part of the copy goes by the version of the row that it was told
last, so neither can put back the other's past. What an order left comes with the price of that
moment, which makes the copy fresh again, or tells that it is out of date. How old a copy may be
is counted from when its price was true, and not from when we heard of it.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from servicekit import metrics
from servicekit.caching.redis import (
    UNAVAILABLE,
    Script,
    Unavailable,
    best_effort,
    invalidate_when_back,
    read,
)
from servicekit.contracts.events import (
    ProductArchived,
    ProductCreated,
    ProductUpdated,
    StockDecision,
    StockReleased,
)
from servicekit.messaging.envelope import Received
from servicekit.timestamps import read_moment

StockNews = StockDecision | StockReleased

# Longer than any price may be sold at without the source: until then older news lose against it.
TTL_SECONDS = 7 * 24 * 3600


class CatalogProduct(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A product as the order service knows it; at the Unix time `as_of` that was its price.

    `as_of` is 0 when another price has been heard of, which is not known by itself yet.
    """

    id: UUID
    name: str = ""
    price: int
    qty: int
    version: int
    as_of: int

    def is_within(self, seconds: float) -> bool:
        """Whether the price was true so many seconds ago, or later."""
        return time.time() - self.as_of <= seconds


# The JSON is put together from its parts here, and not decoded and encoded, because Lua's numbers
# would round a price of sixteen digits.
_RENDER = b"""
    local function read(parts, ...)
        local found = redis.pcall('HMGET', parts, ...)
        if not found.err then return found end
        -- Somebody else's, of another type: as if there were nothing.
        redis.call('DEL', parts)
        return {}
    end
    local function render(key, parts, ttl_ms)
        local p = redis.call('HMGET', parts, 'details', 'qty', 'version', 'as_of')
        if not p[1] then return end
        local json = p[1] .. ',"qty":' .. p[2] .. ',"version":' .. p[3] .. ',"asOf":' .. p[4] .. '}'
        redis.call('SET', key, json, 'PX', ttl_ms)
        redis.call('PEXPIRE', parts, ttl_ms)
    end
    local function at_least(known, version)
        -- Garbage is no number, and loses.
        local number = tonumber(known or '')
        return not number or not (number > tonumber(version))
    end
"""

_PUT_PRODUCT = Script(
    _RENDER
    + b"""
    local details, price, qty, version, as_of, ttl_ms = unpack(ARGV)
    local known = read(KEYS[2], 'version', 'stock_version', 'price', 'as_of')
    if not at_least(known[1], version) then return end
    -- It may have been confirmed since.
    if price == known[3] and not at_least(known[4], as_of) then as_of = known[4] end
    redis.call('HSET', KEYS[2],
        'details', details, 'price', price, 'version', version, 'as_of', as_of)
    if at_least(known[2], version) then
        redis.call('HSET', KEYS[2], 'qty', qty, 'stock_version', version)
    end
    render(KEYS[1], KEYS[2], ttl_ms)
    """
)

_PUT_STOCK = Script(
    _RENDER
    + b"""
    for i = 1, #KEYS, 2 do
        local qty, version, price, as_of = unpack(ARGV, 2 * i - 1, 2 * i + 2)
        local key, parts = KEYS[i], KEYS[i + 1]
        local known = read(parts, 'stock_version', 'version', 'price', 'as_of')
        local ttl_ms = redis.call('PTTL', parts)
        if known[1] and ttl_ms > 0 and at_least(known[1], version) then
            redis.call('HSET', parts, 'qty', qty, 'stock_version', version)
            if price ~= '' and at_least(known[2], version) then
                if price ~= known[3] then
                    redis.call('HSET', parts, 'as_of', 0)
                elseif at_least(known[4], as_of) then
                    redis.call('HSET', parts, 'as_of', as_of)
                end
            end
            render(key, parts, ttl_ms)
        end
    end
    """
)

# The versions stay, so that no older news brings the product back.
_FORGET_PRODUCT = Script(
    _RENDER
    + b"""
    local version, ttl_ms = unpack(ARGV)
    if not at_least(read(KEYS[2], 'version')[1], version) then return end
    redis.call('HDEL', KEYS[2], 'details')
    redis.call('HSET', KEYS[2], 'version', version, 'stock_version', version)
    redis.call('PEXPIRE', KEYS[2], ttl_ms)
    redis.call('DEL', KEYS[1])
    """
)

_decode = msgspec.json.Decoder(CatalogProduct).decode
_lookups = metrics.Lookups("catalog")


def get(product_id: UUID) -> CatalogProduct | Unavailable | None:
    """Return our copy of a product, None if we have none that can be read."""
    answer = read(f"catalog:{product_id}")
    if answer is UNAVAILABLE:
        _lookups.unavailable.inc()
        return UNAVAILABLE
    [copy] = answer
    try:
        product = None if copy is None else _decode(copy)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        product = None
    (_lookups.miss if product is None else _lookups.hit).inc()
    return product


def put(*, product_id: UUID, name: str, price: int, qty: int, version: int, as_of: int) -> None:
    """Store the state that a product had at the Unix time `as_of`, unless a newer one is known."""
    head = msgspec.json.encode({"id": str(product_id), "name": name, "price": price})
    # A clock that is ahead makes no price fresh for longer.
    as_of = min(as_of, int(time.time()))
    _tell(
        _PUT_PRODUCT,
        keys=_keys(product_id),
        args=[head[:-1], price, qty, version, as_of, TTL_SECONDS * 1000],
    )


def forget(product_id: UUID, *, version: int) -> None:
    """Drop the copy of a product that is not sold any more, unless a newer state is known."""
    _tell(_FORGET_PRODUCT, keys=_keys(product_id), args=[version, TTL_SECONDS * 1000])


def refresh_products(
    changes: Iterable[Received[ProductCreated | ProductUpdated | ProductArchived]],
) -> None:
    """Store the states that the product service has announced, as of when it recorded them."""
    for each in changes:
        change = each.event
        if isinstance(change, ProductArchived):
            forget(change.id, version=change.version)
            continue
        put(
            product_id=change.id,
            name=change.name,
            price=change.price,
            qty=change.qty,
            version=change.version,
            as_of=each.happened_at or 0,
        )


def refresh_stock(outcomes: Sequence[StockNews]) -> None:
    """Store what orders left of products that we have copies of, in one round trip."""
    newest: dict[UUID, StockNews] = {}
    for outcome in outcomes:
        known = newest.get(outcome.product_id)
        if known is None or known.version <= outcome.version:
            newest[outcome.product_id] = outcome
    keys: list[str] = []
    args: list[Any] = []
    for product_id, outcome in newest.items():
        keys += _keys(product_id)
        args += [outcome.remaining, outcome.version, *_confirmed_price(outcome)]
    if keys:
        _tell(_PUT_STOCK, keys=keys, args=args)


def _confirmed_price(news: StockNews) -> tuple[int | str, int]:
    """Return the price that a product had, and when."""
    if isinstance(news, StockReleased) or news.price is None:
        return "", 0
    decided_at = read_moment(news.decided_at)
    if decided_at is None:
        return "", 0
    # A clock that is ahead makes no price fresh for longer.
    return news.price, int(min(decided_at.timestamp(), time.time()))


def _tell(script: Script, *, keys: list[str], args: list[Any]) -> None:
    if best_effort(lambda client: script(client, keys=keys, args=args)) is UNAVAILABLE:
        invalidate_when_back(keys)


def _keys(product_id: UUID) -> list[str]:
    return [f"catalog:{product_id}", f"catalog:{product_id}:parts"]
