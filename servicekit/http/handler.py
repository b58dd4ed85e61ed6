"""The WSGI application of both services: Django's handler for people, a shorter one for programs.

A page (of the admin, the documentation, the browsable API) passes all of `MIDDLEWARE`. A program's
request passes `API_MIDDLEWARE`, and none of the signals by which Django tidies up around a request:
sessions, CSRF tokens, messages and static files would cost it more than its own work, and a session
cookie would make an order need PostgreSQL.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import django
from django.conf import settings
from django.core.handlers.exception import convert_exception_to_response
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch, get_resolver
from django.utils.module_loading import import_string

from servicekit.http import traces
from servicekit.http.conditional import accepts_html

_PAGES = ("/admin", "/docs", "/static/")
_KNOWN_HOSTS = 1000


def application() -> "Handler":
    """Return the service's WSGI application."""
    django.setup(set_prefix=False)
    traces.start()
    return Handler()


class Handler(WSGIHandler):
    """Answers pages as Django does, and programs by a shorter way."""

    def load_middleware(self, is_async: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's signature
        """Make both chains of middleware."""
        super().load_middleware(is_async)
        chain: Any = convert_exception_to_response(self._respond)
        for path in reversed(settings.API_MIDDLEWARE):
            chain = import_string(path)(chain)
        self._answer_program: Callable[[HttpRequest], HttpResponse] = chain
        self._known_hosts: set[str] = set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # type: ignore[override]  # WSGI asks for no more
        """Answer a request (PEP 3333)."""
        if environ["PATH_INFO"].startswith(_PAGES) or accepts_html(environ):
            return super().__call__(environ, start_response)
        try:
            response = self._answer_program(WSGIRequest(environ))
        finally:
            connection.close_if_unusable_or_obsolete()
        start_response(
            f"{response.status_code} {response.reason_phrase}", list(response.headers.items())
        )
        return response if response.streaming else [response.content]

    def _respond(self, request: HttpRequest) -> HttpResponseBase:
        self._check_host(request)
        request.resolver_match = match = _resolve(request.path_info)
        response: Any = match.func(request, *match.args, **match.kwargs)
        if not getattr(response, "is_rendered", True):
            response.render()
        return response  # type: ignore[no-any-return]  # views answer with responses

    def _check_host(self, request: HttpRequest) -> None:
        """Refuse a host that is not ours, as Django's middleware does for pages.

        :raises DisallowedHost: if it is none of `ALLOWED_HOSTS`
        """
        # Known hosts are few, and checking one costs a regular expression.
        host = request.META.get("HTTP_HOST", "")
        if host not in self._known_hosts:
            request.get_host()
            if host and len(self._known_hosts) < _KNOWN_HOSTS:
                self._known_hosts.add(host)


# Every path leads somewhere: the last route takes what no other does.
@lru_cache(maxsize=1024)
def _resolve(path: str) -> ResolverMatch:
    return get_resolver().resolve(path)
