"""Who may call the API, and how often: API keys and rate limits, where they are asked for.

A key is sent as `Authorization: Bearer …` (RFC 6750). One that is sent is checked, also where none
is needed. Credentials of another kind are somebody else's, a proxy's for instance.
"""

import hmac
import math
from functools import cache

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.http import HttpRequest
from django.utils.crypto import salted_hmac
from rest_framework.exceptions import APIException

from servicekit.access.known import KeysUnavailable, KnownKey, KnownKeys
from servicekit.access.limits import Limiter, RateLimit
from servicekit.access.models import ApiKey
from servicekit.http.deadline import DeadlineExceeded, limited_to
from servicekit.networks import network_of

# Of the time that a request has.
_READ_SECONDS = 0.3
_PEER = "X-Shop-Peer"


class ApiKeyRequired(APIException):
    """There is no key, and one is needed."""

    status_code = 401
    default_code = "api_key_required"
    default_detail = "An API key is needed here: send it as `Authorization: Bearer …`."
    auth_header = "Bearer"


class ApiKeyInvalid(APIException):
    """The key is none, or was revoked."""

    status_code = 401
    default_code = "api_key_invalid"
    default_detail = "This is no API key of this service, or it was revoked."
    auth_header = 'Bearer error="invalid_token"'


class InsufficientScope(APIException):
    """The key is for something else."""

    status_code = 403
    default_code = "insufficient_scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This API key is not for this: it has no scope {scope}.")
        self.auth_header = f'Bearer error="insufficient_scope", scope="{scope}"'


class RateLimited(APIException):
    """There were more requests than one caller may make."""

    status_code = 429
    default_code = "rate_limited"
    default_detail = "These are too many requests. Try again later."

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.wait = math.ceil(seconds)


class KeyNotChecked(APIException):
    """Whether the key is good cannot be said."""

    status_code = 503
    default_code = "temporarily_unavailable"
    default_detail = "The API key cannot be checked now."
    wait = 1


def is_guarded(request: HttpRequest) -> bool:
    """Return whether there is anything to check about a request."""
    return bool(
        "HTTP_AUTHORIZATION" in request.META
        or settings.REQUIRE_API_KEY
        or settings.RATE_LIMIT_PER_ADDRESS
    )


def refusal(request: HttpRequest, scope: str | None) -> Exception | None:
    """Return why a request is refused, None if it is not; it has its `api_key` from now on.

    A request with a good key is counted for the key, any other for its address. `scope` is what its
    key has to be for; None where everybody is let in.
    """
    try:
        _admit(request, scope)
    except (APIException, DeadlineExceeded) as error:
        return error
    return None


def peer_headers() -> dict[str, str]:
    """Return the headers by which the services know each other: they keep each other to no limit.

    They do so where both have the same `SECRET_KEY`.
    """
    return {_PEER: _peer_token()}


def _admit(request: HttpRequest, scope: str | None) -> None:
    key = None
    try:
        key = _key_of(request)
    finally:
        # Also of one whose key is not good, which may be an attempt at guessing one.
        _count(request, key)
    request.api_key = key  # type: ignore[attr-defined]  # ours, on Django's request
    if scope is None:
        return
    if key is None:
        if settings.REQUIRE_API_KEY:
            raise ApiKeyRequired
    elif scope not in key.scopes:
        raise InsufficientScope(scope)


def _key_of(request: HttpRequest) -> KnownKey | None:
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        key = _known_keys.find(token.strip())
    except KeysUnavailable as error:
        raise KeyNotChecked from error
    if key is None:
        raise ApiKeyInvalid
    return key


def _count(request: HttpRequest, key: KnownKey | None) -> None:
    if key is not None:
        caller, limit = key.prefix, RateLimit.of(settings.RATE_LIMIT_PER_KEY)
    elif hmac.compare_digest(
        request.META.get("HTTP_X_SHOP_PEER", "").encode(), _peer_token().encode()
    ):
        return
    else:
        caller = network_of(request.META["REMOTE_ADDR"])
        limit = RateLimit.of(settings.RATE_LIMIT_PER_ADDRESS)
    seconds = 0.0 if limit is None else _limiter().seconds_to_wait(caller, limit)
    if seconds:
        raise RateLimited(seconds)


def _read_keys() -> dict[str, KnownKey] | None:
    try:
        with limited_to(_READ_SECONDS):
            return ApiKey.objects.known()
    except (DatabaseError, InterfaceError, DeadlineExceeded):
        return None
    finally:
        # The request may wait for something else now, and connections are fewer than requests.
        connection.close_if_unusable_or_obsolete()


_known_keys = KnownKeys(_read_keys)


@cache
def _limiter() -> Limiter:
    return Limiter(settings.SERVICE_NAME)


@cache
def _peer_token() -> str:
    return salted_hmac("servicekit.http.access", "peer", algorithm="sha256").hexdigest()
