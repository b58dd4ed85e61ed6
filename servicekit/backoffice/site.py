"""The admin's site."""

from typing import Any

from django.contrib.admin.apps import AdminConfig
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from unfold.sites import UnfoldAdminSite


class Site(UnfoldAdminSite):
    """Unfold's site, as far as these services need it."""

    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Answer with the form, or 429 where `LoginForm` has seen too many attempts."""
        response: HttpResponse = super().login(request, extra_context)
        form = (getattr(response, "context_data", None) or {}).get("form")
        if seconds := getattr(form, "retry_after_seconds", 0):
            response.status_code = 429
            response.headers["Retry-After"] = str(seconds)
        return response

    def search(self, request: HttpRequest, extra_context: Any = None) -> HttpResponseNotFound:  # noqa: ARG002 - unfold's signature
        """Answer that there is none: unfold's would search every table and cache what it found."""
        return HttpResponseNotFound()


class SiteConfig(AdminConfig):
    """Django's admin, on this site."""

    default_site = "servicekit.backoffice.site.Site"
