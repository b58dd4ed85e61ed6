"""The product service, asked over HTTP."""

import time
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin
from uuid import UUID

import msgspec
import requests
from django.conf import settings
from requests.adapters import HTTPAdapter

from servicekit import correlation
from servicekit.breaker import Breaker, CircuitOpen
from servicekit.contracts.fields import Money, Stock
from servicekit.http.access import peer_headers

# To connect, and between two reads. Together with everything else that an order waits for, they
# stay within the two seconds that any answer may take.
_TIMEOUTS_SECONDS = (0.3, 0.6)


class ProductNotFound(Exception):
    """The product service does not have this product."""

    def __init__(self, product_id: object) -> None:
        super().__init__(f"There is no product {product_id}.")


class ProductServiceUnavailable(Exception):
    """The product service did not answer, or not sensibly."""


class SoldProduct(msgspec.Struct, frozen=True, kw_only=True):
    """What the product service says of a product; version 0 when it does not say.

    `as_of` is the Unix time at which it was asked: what it says was true then, or later.
    """

    id: UUID
    name: str
    price: Money
    qty: Stock
    version: int = 0
    as_of: int = 0


def _session() -> requests.Session:
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=64, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update(
        {
            "Accept": "application/json",
            # A refusal, or a price that is sold at, is not decided from the other side's cache.
            "Cache-Control": "no-cache",
            "User-Agent": "order-service",
            **peer_headers(),
        }
    )
    # Our own services are not behind the proxy that the machine may have for the outside world;
    # looking for one would also cost every request a walk through the environment.
    session.trust_env = False
    return session


_http = _session()
_FAILURES = (requests.RequestException,)
_breaker = Breaker("the product service", pause_seconds=1.0)
_decode = msgspec.json.Decoder(SoldProduct).decode


def fetch_product(product_id: UUID) -> SoldProduct:
    """Ask for a product, past all caches.

    :raises ProductNotFound: if there is none
    :raises ProductServiceUnavailable: if there is no answer in time
    """
    as_of = int(time.time())
    try:
        response = _breaker.call(lambda: _ask_for(product_id), failures=_FAILURES)
    except (CircuitOpen, *_FAILURES) as error:
        raise ProductServiceUnavailable(str(error)) from error
    if response.status_code in (404, 410):
        raise ProductNotFound(product_id)
    return _read(response, as_of)


def _ask_for(product_id: UUID) -> requests.Response:
    response = _http.get(
        f"{settings.PRODUCT_API_URL}/{product_id}", timeout=_TIMEOUTS_SECONDS, headers=_identity()
    )
    if response.status_code not in (404, 410):
        response.raise_for_status()
    return response


def is_up() -> bool:
    """Return whether the product service answers; what it answers is its own business."""
    # Beside the products, wherever the two are: `…/products` and `…/health/live`.
    address = urljoin(settings.PRODUCT_API_URL, "health/live")
    try:
        answer = _http.get(address, timeout=_TIMEOUTS_SECONDS)
    except requests.RequestException:
        return False
    return answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR


def _identity() -> dict[str, str]:
    """Return the headers that make the question part of the request that it is asked for."""
    request = correlation.current()
    if request is None:
        return {}
    return {"X-Request-ID": request.request_id, "traceparent": request.traceparent}


def _read(response: Any, as_of: int) -> SoldProduct:
    try:
        product = _decode(response.content)
    except msgspec.MsgspecError as error:
        raise ProductServiceUnavailable(f"it answered nonsense: {error}") from error
    tag = response.headers.get("ETag", "").strip('"')
    version = int(tag) if tag.isdecimal() else 0
    return msgspec.structs.replace(product, version=version, as_of=as_of)
