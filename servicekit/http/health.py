"""Whether the process is alive, and whether it can do its work."""

import socket
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

import msgspec
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse


def live(_request: HttpRequest) -> HttpResponse:
    """Answer that this process runs. Touches nothing, so it fails only when the process does."""
    return HttpResponse(b'{"status":"live"}', content_type="application/json; charset=utf-8")


def ready(
    checks: Mapping[str, Callable[[], bool]], *, needs: Callable[[Iterable[bool]], bool] = all
) -> Callable[[HttpRequest], HttpResponse]:
    """Return a view that names what is up and down, and answers 503 when too much is down.

    `needs` is `all`, or `any` for a service that gets by with one of the things checked.
    """

    def view(_request: HttpRequest) -> HttpResponse:
        results = {name: check() for name, check in checks.items()}
        is_ready = needs(results.values())
        body = {
            "status": "ready" if is_ready else "not_ready",
            "checks": {name: "up" if is_up else "down" for name, is_up in results.items()},
        }
        return HttpResponse(
            msgspec.json.encode(body),
            status=200 if is_ready else 503,
            content_type="application/json; charset=utf-8",
        )

    return view


def database_is_up() -> bool:
    """Return whether the service's own database answers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (OperationalError, InterfaceError):
        return False
    return True


def broker_is_up() -> bool:
    """Return whether something listens where the broker should."""
    # A TCP probe: an AMQP handshake per probe would cost the broker more than a batch of orders.
    url = urlsplit(settings.BROKER_URL)
    try:
        with socket.create_connection((url.hostname or "", url.port or 5672), timeout=0.3):
            return True
    except OSError:
        return False
