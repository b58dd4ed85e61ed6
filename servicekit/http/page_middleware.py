"""Middleware that only pages need, for pages only: a machine's request passes by.

Sessions, CSRF tokens, messages and static files cost an API request as much as its own work, and a
session cookie would make an order need PostgreSQL.
"""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from servicekit.http.html import wants_html

Handler = Callable[[HttpRequest], HttpResponse]

_PAGES = ("/admin", "/docs", "/static/")
_HOSTS_LIMIT = 1000


class PageMiddleware:
    """Sends pages through `PAGE_MIDDLEWARE`, as Django sends all requests through `MIDDLEWARE`."""

    def __init__(self, get_response: Handler) -> None:
        self._answer_machine = get_response
        self._known_hosts: set[str] = set()
        self._process_view: list[Any] = []
        handler: Any = get_response
        for path in reversed(settings.PAGE_MIDDLEWARE):
            middleware = import_string(path)(handler)
            if hasattr(middleware, "process_view"):
                self._process_view.insert(0, middleware.process_view)
            handler = convert_exception_to_response(middleware)
        self._answer_person: Handler = handler

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a person's browser, or a machine."""
        is_page = request.path.startswith(_PAGES) or wants_html(request)
        request.is_page = is_page  # type: ignore[attr-defined]  # ours
        if is_page:
            return self._answer_person(request)
        self._check_host(request)
        return self._answer_machine(request)

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponse | None:
        """Let the middleware of pages look at the view (CSRF); the API takes no forms."""
        if request.is_page:  # type: ignore[attr-defined]  # ours
            for process in self._process_view:
                response: HttpResponse | None = process(request, *view)
                if response is not None:
                    return response
        return None

    def _check_host(self, request: HttpRequest) -> None:
        """Refuse a host that is not ours, as Django's middleware does for pages.

        :raises DisallowedHost: if it is none of `ALLOWED_HOSTS`
        """
        # Known hosts are few, and checking one costs a regular expression.
        host = request.META.get("HTTP_HOST", "")
        if host not in self._known_hosts:
            request.get_host()
            if host and len(self._known_hosts) < _HOSTS_LIMIT:
                self._known_hosts.add(host)
