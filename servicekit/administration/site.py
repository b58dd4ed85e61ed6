"""The admin's site."""

from typing import Any

from django.contrib.admin.apps import AdminConfig
from django.http import HttpRequest, HttpResponseNotFound
from unfold.sites import UnfoldAdminSite


class Site(UnfoldAdminSite):
    """Unfold's site, as far as these services need it."""

    def search(self, request: HttpRequest, extra_context: Any = None) -> HttpResponseNotFound:  # noqa: ARG002 - unfold's signature
        """Answer that there is none: unfold's would search every table and cache what it found."""
        return HttpResponseNotFound()


class SiteConfig(AdminConfig):
    """Django's admin, on this site."""

    default_site = "servicekit.administration.site.Site"
