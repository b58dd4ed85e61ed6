"""How long a client is willing to wait for a better answer."""

import re

from django.http import HttpRequest

MAX_WAIT_SECONDS = 30

_WAIT = re.compile(r'wait\s*=\s*"?([0-9]{1,9})"?', re.IGNORECASE)


def preferred_wait(request: HttpRequest) -> int | None:
    """Return the seconds of `Prefer: wait=` (RFC 7240, section 4.3), cut to what we offer.

    None without the preference. One that makes no sense is no error, but ignored (section 2).
    """
    for preference in request.META.get("HTTP_PREFER", "").split(","):
        matched = _WAIT.fullmatch(preference.partition(";")[0].strip())
        if matched:
            return min(int(matched[1]), MAX_WAIT_SECONDS)
    return None
