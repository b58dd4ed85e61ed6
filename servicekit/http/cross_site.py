"""Requests that a browser sends for a page of another site.

One with a JSON body a browser sends nowhere without asking there first. One without a body it
sends at once, and then its own word is all that tells whose page it was.
"""

from django.conf import settings
from django.http import HttpRequest
from rest_framework.exceptions import APIException


class CrossSite(APIException):
    """A page of another site has made a browser ask for it."""

    status_code = 403
    default_code = "cross_site"
    default_detail = "This cannot be asked for by a page of another site."


def refuse_cross_site(request: HttpRequest) -> None:
    """Let programs pass, and browsers for a page of ours or of `CSRF_TRUSTED_ORIGINS`.

    :raises CrossSite: for any other page
    """
    origin = request.META.get("HTTP_ORIGIN")
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return
    # Not its scheme: behind a proxy it may be another one. `null` has no host at all.
    is_foreign = origin is not None and origin.partition("://")[2] != request.get_host()
    if is_foreign or request.META.get("HTTP_SEC_FETCH_SITE") in ("cross-site", "same-site"):
        raise CrossSite
