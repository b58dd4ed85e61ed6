"""Whether the process is alive, and whether it can do its work."""

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import msgspec
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse

from servicekit.caching.redis import UNAVAILABLE, best_effort
from servicekit.http.problems import reading_only

Check = Callable[[], bool]
T = TypeVar("T")

_DEADLINE_SECONDS = 1.2
"""What has not answered by then is down. Checks run side by side, so this bounds the answer."""


@reading_only
def live(_request: HttpRequest) -> HttpResponse:
    """Answer that this process runs. Touches nothing, so it fails only when the process does."""
    return HttpResponse(b'{"status":"live"}', content_type="application/json; charset=utf-8")


def ready(
    checks: Mapping[str, Check],
    *,
    works_with: Callable[[Set[str]], bool],
    details: Callable[[], Sequence[Any]] = list,
) -> Callable[[HttpRequest], HttpResponse]:
    """Return a view that names what is up and down, and what this makes of the service.

    `ready`: everything is up. `degraded`: something is down, and the service works without it.
    `not_ready`, with 503: it does not, because `works_with` says so of the names that are up.
    `details` are looked up for those who ask for them: `?details`.
    """
    probes = Probes[Any]({**checks, "details": details})

    @reading_only
    def view(request: HttpRequest) -> HttpResponse:
        wants_details = "details" in request.GET
        answers = probes.answers([*checks, *(["details"] if wants_details else [])])
        up = {name for name in checks if answers.get(name)}
        works = works_with(up)
        body = {
            "status": ("ready" if up == checks.keys() else "degraded") if works else "not_ready",
            "checks": {name: "up" if name in up else "down" for name in checks},
            **({"details": answers.get("details", [])} if wants_details else {}),
        }
        return HttpResponse(
            msgspec.json.encode(body),
            status=200 if works else 503,
            content_type="application/json; charset=utf-8",
            headers={"Cache-Control": "no-store"},
        )

    return view


class Probes(Generic[T]):
    """Runs checks side by side; one that hangs is not asked again until it comes back."""

    def __init__(
        self, checks: Mapping[str, Callable[[], T]], *, within_seconds: float = _DEADLINE_SECONDS
    ) -> None:
        self._checks, self._within_seconds = checks, within_seconds
        # One thread per check: its threads start when they are first used, after any fork.
        self._pool = ThreadPoolExecutor(len(checks), thread_name_prefix="health")
        self._running: dict[str, Future[T]] = {}

    def answers(self, names: Iterable[str] | None = None) -> dict[str, T]:
        """Return what each has said in time; nothing of one that hangs, or fails."""
        asked = {name: self._ask(name) for name in names or self._checks}
        wait(asked.values(), timeout=self._within_seconds)
        return {
            name: answer.result()
            for name, answer in asked.items()
            if answer.done() and answer.exception() is None
        }

    def _ask(self, name: str) -> "Future[T]":
        # Who asks while another's question is on its way gets the same answer: any number of
        # callers cost one check at a time.
        running = self._running.get(name)
        if running is None or running.done():
            running = self._running[name] = self._pool.submit(self._checks[name])
        return running


def database_is_up() -> bool:
    """Return whether the service's own database answers."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (OperationalError, InterfaceError):
        return False
    finally:
        # This thread is no request: nobody else gives its connection back.
        connection.close()
    return True


def redis_is_up() -> bool:
    """Return whether Redis answers, in the time that a request would give it."""
    return best_effort(lambda client: client.ping()) is not UNAVAILABLE


def broker_is_up() -> bool:
    """Return whether something listens where the broker should."""
    # A TCP probe: an AMQP handshake per probe would cost the broker more than a batch of orders.
    url = urlsplit(settings.BROKER_URL)
    try:
        with socket.create_connection((url.hostname or "", url.port or 5672), timeout=0.3):
            return True
    except OSError:
        return False
