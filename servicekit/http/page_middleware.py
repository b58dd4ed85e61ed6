"""Django's middleware that only pages need, for pages only: a machine's JSON passes by.

Sessions, CSRF tokens, messages and static files cost an API request more than its own work does,
and a session cookie would make an order need PostgreSQL.
"""

from typing import Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware
from whitenoise.middleware import WhiteNoiseMiddleware

from servicekit.http.html import wants_html

_PAGES = ("/admin", "/docs", "/static/")


def is_page(request: HttpRequest) -> bool:
    """Return whether a person's browser asks for a page, or for what belongs to one."""
    return request.path.startswith(_PAGES) or wants_html(request)


class _ForPages:
    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        if is_page(request):
            return super().__call__(request)  # type: ignore[misc]  # of the middleware beside us
        return self.get_response(request)


class Security(_ForPages, SecurityMiddleware):
    """Headers for browsers."""


class StaticFiles(_ForPages, WhiteNoiseMiddleware):
    """Style sheets and scripts."""


class Sessions(_ForPages, SessionMiddleware):
    """Who is logged in to the admin."""


class Common(_ForPages, CommonMiddleware):
    """Redirects and lengths."""


class Csrf(_ForPages, CsrfViewMiddleware):
    """Tokens of forms."""

    def process_view(self, request: HttpRequest, *arguments: Any) -> Any:
        """Check the token of a form; the API takes none, and knows no sessions."""
        return super().process_view(request, *arguments) if is_page(request) else None


class Authentication(_ForPages, AuthenticationMiddleware):
    """The person behind a session."""


class Messages(_ForPages, MessageMiddleware):
    """What a page says once."""


class FrameOptions(_ForPages, XFrameOptionsMiddleware):
    """Against clickjacking."""
