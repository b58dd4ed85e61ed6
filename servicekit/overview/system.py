"""Whether the whole system is well, on one page of each admin.

Each service looks at its own part, and asks the other for the same: `/health/ready?details`. What
does not answer is down, and keeps nobody waiting: the page takes two seconds at most.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import Any, Literal, TypeVar
from urllib.parse import urljoin

import msgspec
import requests
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.safestring import SafeString

from servicekit import worker_reports
from servicekit.backoffice.cards import Card
from servicekit.backoffice.display import Tone, badge, counted, duration, link, span
from servicekit.backoffice.elsewhere import other_admin
from servicekit.backoffice.queues import PATIENCE_SECONDS, QueueDepth, queue_depths
from servicekit.breaker import open_breakers
from servicekit.caching.redis import UNAVAILABLE, best_effort
from servicekit.dead_letters.selectors import waiting_count
from servicekit.http.health import Probes
from servicekit.outbox.models import OutgoingEvent
from servicekit.overview.dashboard import DEAD_LETTERS, OUTBOX_IS_LATE_AFTER, QUEUE_IS_LONG_FROM
from servicekit.worker_reports import Report

# One within the other: what is late in the other service is told by it in time.
_PART_SECONDS = 1.0
_OTHER_TIMEOUTS_SECONDS = (0.3, 1.5)
_PAGE_SECONDS = 1.9
_BROKER_TIMEOUT_SECONDS = 0.5

_BOTH = "Both services"
_WIDTH = "lg:col-span-3 even"
_NO_ANSWER = "no answer in time"
_UNKNOWN = "what reports it does not answer"
_START_IT = "Start or restart it: “make ps” shows what runs, “make logs” what it says."
_WITHOUT = {
    "PostgreSQL": "Orders are accepted meanwhile, and decided afterwards; nobody can log in here.",
    "Redis": "Everything works without it, more slowly.",
    "RabbitMQ": "Orders are stored in PostgreSQL meanwhile, and decided afterwards.",
}

T = TypeVar("T")

State = Literal["well", "degraded", "down", "unknown"]
_TONES: dict[State, Tone] = {
    "well": "success",
    "unknown": "",
    "degraded": "warning",
    "down": "danger",
}
_WORSE = [*_TONES]


class Row(msgspec.Struct, frozen=True):
    """How one part is: the figure that matters and, unless it is well, what to do."""

    of: str
    """The service that it is a part of."""
    what: str
    state: State
    figure: str
    advice: str = ""
    page: str = ""
    """Where that service's admin shows more."""


class System:
    """What a service knows of its own part, and of the other's."""

    def __init__(self, more: Mapping[str, Callable[[], Row]] | None = None) -> None:
        """Look at what every service has, and at `more`, by what it is."""
        self._more = more or {}
        parts = {"database": _database, "redis": _redis, "broker": _broker}
        timed = {name: partial(_timed, look) for name, look in parts.items()}
        self._parts = Probes[Any]({**timed, **self._more}, within_seconds=_PART_SECONDS)
        both = {"here": self.look, "there": _ask_other}
        self._both = Probes[Any](both, within_seconds=_PAGE_SECONDS)

    def look(self) -> list[Row]:
        """Return how each part of this service is."""
        found = self._parts.answers()
        unknown = [_own("Outbox"), _own("Dead letters")]
        database_seconds, of_database = found.get("database", (None, unknown))
        redis_seconds, reports = found.get("redis", (None, []))
        broker_seconds, depths = found.get("broker", (None, None))
        without = " and ".join(open_breakers())
        rows = [
            _own(
                "Web service",
                "degraded" if without else "well",
                f"works without {without}" if without else "answers",
                "It tries again every second; see what is down.",
            ),
            _worker(reports, depths),
            *_queues(depths),
            _server("PostgreSQL", database_seconds, settings.SERVICE_NAME),
            *of_database,
            *(found.get(what) or _own(what) for what in self._more),
            _server("Redis", redis_seconds),
            _server("RabbitMQ", broker_seconds),
        ]
        replace = msgspec.structs.replace
        return [replace(each, advice="") if each.state == "well" else each for each in rows]

    def page(self, request: HttpRequest) -> HttpResponse:
        """Show how everything is.

        To staff, in the admin. Without a database nobody can log in: then it shows everybody what
        `/health/ready?details` tells everybody.
        """
        found = self._both.answers()
        # It may be late where a process has too little of the machine.
        here = found.get("here") or [_own("Web service")]
        rows = [*here, *(found.get("there") or _other_is_down())]
        if any(row.what == "PostgreSQL" and row.state == "down" for row in here):
            request.user = AnonymousUser()
            # What reads no database: the title, which only those see who may, and no sidebar.
            bare = {"has_permission": True, "is_nav_sidebar_enabled": False, "messages": []}
            return _page(request, rows, **bare)
        return admin.site.admin_view(lambda asked: _page(asked, rows))(request)


def _page(request: HttpRequest, rows: Sequence[Row], **more: Any) -> HttpResponse:
    worst: dict[tuple[str, str], Row] = {}
    for row in rows:
        # Of what both use, the one that fares worse with it counts.
        known = worst.setdefault((row.of, row.what), row)
        if _WORSE.index(row.state) > _WORSE.index(known.state):
            worst[row.of, row.what] = row
    states = [row.state for row in worst.values()]
    bad = [row for state in ("down", "degraded") for row in worst.values() if row.state == state]
    counts = [
        (len(bad), "thing needs attention", "things need attention"),
        (states.count("unknown"), "thing is unknown", "things are unknown"),
    ]
    verdict = "; ".join(counted(*each) for each in counts if each[0])
    bases = {settings.SERVICE_NAME: "/admin/", settings.OTHER_SERVICE["name"]: other_admin(request)}
    guide = "docs/operating.md, “When something is wrong”, tells more."
    shown = [
        Card(
            title=f"{verdict or 'Everything works'}.",
            action=_badge(max(states, key=_WORSE.index)),
            width=_WIDTH,
            note=guide if bad else "",
            empty=guide,
            table={
                "headers": ["Part", "State", "What to do"],
                "rows": [[f"{row.of}: {row.what}", _badge(row.state), row.advice] for row in bad],
            },
        )
    ]
    for service in dict.fromkeys([*bases, _BOTH]):
        rows_of_it = [row for row in worst.values() if row.of == service]
        table = [[row.what, _badge(row.state), _figure(row, bases)] for row in rows_of_it]
        headers = ["Part", "State", "Details"]
        shown.append(Card(title=service, width=_WIDTH, table={"headers": headers, "rows": table}))
    context = {
        **admin.site.each_context(request),
        "title": "System",
        "cards": shown,
        "drawn_at": timezone.now(),
        **more,
    }
    return render(request, "admin/index.html", context)


def _badge(state: State) -> SafeString:
    return badge("OK" if state == "well" else state, _TONES[state])


def _figure(row: Row, bases: Mapping[str, str]) -> str:
    base = bases.get(row.of)
    return link(base + row.page, row.figure) if base and row.page else row.figure


def _own(what: str, state: State = "unknown", figure: str = _UNKNOWN, *more: str) -> Row:
    return Row(settings.SERVICE_NAME, what, state, figure, *more)


def _server(what: str, seconds: float | None, of: str = _BOTH) -> Row:
    if seconds is None:
        return Row(of, what, "down", _NO_ANSWER, f"{_START_IT} {_WITHOUT[what]}")
    return Row(of, what, "well", f"answers in {span(round(seconds * 1000))}")


def _timed(ask: Callable[[], T]) -> tuple[float, T]:
    """Return how many seconds something has taken to answer, and the answer."""
    started = time.monotonic()
    answer = ask()
    return time.monotonic() - started, answer


def _database() -> list[Row]:
    # This thread is no request: nobody else gives its connection back.
    with closing(connection):
        age, letters = OutgoingEvent.objects.oldest_age(), waiting_count()
    return [
        _own(
            "Outbox",
            "degraded" if (age or timedelta()) > OUTBOX_IS_LATE_AFTER else "well",
            f"oldest event {duration(age.total_seconds())} old" if age is not None else "empty",
            "Open it: the last outcome says why. Events wait until somebody takes them.",
            "outbox/outgoingevent/",
        ),
        _own(
            "Dead letters",
            "degraded" if letters else "well",
            f"{letters:,} waiting for a decision",
            "Open each: read the reason, correct the body and replay it, or discard it.",
            DEAD_LETTERS,
        ),
    ]


def _redis() -> list[Report]:
    """Return the workers' reports.

    :raises ConnectionError: if Redis does not answer
    """
    if best_effort(lambda client: client.ping()) is UNAVAILABLE:
        raise ConnectionError
    return worker_reports.newest()


def _broker() -> list[QueueDepth]:
    return queue_depths(settings.WORKER_QUEUES, timeout_seconds=_BROKER_TIMEOUT_SECONDS)


def _worker(reports: Sequence[Report], depths: Sequence[QueueDepth] | None) -> Row:
    """Say how the worker is: by its reports, and by what RabbitMQ knows of it."""
    if depths is not None and not any(depth.consumers for depth in depths):
        is_well, figure = False, "none of its queues has a consumer"
    elif reports:
        silent = time.time() - reports[0].at
        is_well, figure = silent < PATIENCE_SECONDS, f"last sign of life {duration(silent)} ago"
    elif depths is None:
        return _own("Worker")
    else:
        is_well, figure = True, "consumes its queues"
    advice = f"{_START_IT} Nothing is lost: its messages wait in its queues."
    return _own("Worker", "well" if is_well else "down", figure, advice)


def _queues(depths: Sequence[QueueDepth] | None) -> list[Row]:
    if depths is None:
        return [_own(f"Queue {queue}") for queue in settings.WORKER_QUEUES]
    return [_queue(depth) for depth in depths]


def _in_hand(depth: QueueDepth) -> str:
    if depth.in_hand is None:
        return ""
    least = "at least " if depth.hides_some else ""
    return f"{least}{depth.in_hand:,} in hand"


def _queue(depth: QueueDepth) -> Row:
    what = f"Queue {depth.name}"
    if depth.waiting is None:
        return _own(what, "down", "does not exist", "Its worker declares it when it starts.")
    figure = ", ".join(
        filter(
            None,
            [
                depth.trouble or counted(depth.consumers or 0, "consumer"),
                f"{depth.waiting:,} waiting",
                _in_hand(depth),
                f"oldest {duration(depth.oldest_seconds)} old" if depth.oldest_seconds else "",
                f"{counted(depth.dead, 'dead letter')} to collect" if depth.dead else "",
            ],
        )
    )
    if depth.trouble:
        return _own(what, "down", figure, "See the worker. Nothing is lost: messages wait.")
    is_long = depth.waiting >= QUEUE_IS_LONG_FROM
    advice = "If it does not shrink, add workers: docs/operating.md, “Growing”."
    return _own(what, "degraded" if is_long else "well", figure, advice)


def _ask_other() -> list[Row]:
    """Return what the other service says of its own part.

    :raises requests.RequestException: if it does not answer
    :raises msgspec.MsgspecError: if it is of a version that does not say
    """
    name = settings.OTHER_SERVICE["name"]
    if not settings.OTHER_SERVICE["api"]:
        return [Row(name, "Everything", "unknown", "its address is not configured")]
    with requests.Session() as session:
        # Our own services are not behind the proxy that the machine may have.
        session.trust_env = False
        address = urljoin(settings.OTHER_SERVICE["api"], "/health/ready?details")
        answer = session.get(address, timeout=_OTHER_TIMEOUTS_SECONDS)
    rows = msgspec.json.decode(answer.content, type=_Answer).details
    return rows or [Row(name, "Everything", "unknown", "it answers, but its checks took too long")]


class _Answer(msgspec.Struct):
    details: list[Row]


def _other_is_down() -> list[Row]:
    name, without = (settings.OTHER_SERVICE[each] for each in ("name", "without"))
    return [
        Row(name, "Web service", "down", _NO_ANSWER, f"{_START_IT} {without}"),
        Row(name, "Worker, queues and database", "unknown", _UNKNOWN),
    ]
