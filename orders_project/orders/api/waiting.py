"""How long a client is willing to wait for a better answer."""

import re
from collections.abc import Mapping

from django.http import HttpRequest

from servicekit.http.parameters import integer

MAX_WAIT_SECONDS = 30

_WAIT = re.compile(r'wait\s*=\s*"?([0-9]{1,9})"?', re.IGNORECASE)


def wait_parameter(query: Mapping[str, str]) -> int:
    """Return the seconds of `?wait=`, 0 without it.

    :raises ValidationError: if it is nonsense
    """
    return integer(query, "wait", default=0, minimum=0, maximum=MAX_WAIT_SECONDS)


def preferred_wait(request: HttpRequest) -> int | None:
    """Return the seconds of `Prefer: wait=` (RFC 7240, section 4.3), cut to what we offer.

    None without the preference. One that makes no sense is no error, but ignored (section 2).
    """
    for preference in request.META.get("HTTP_PREFER", "").split(","):
        matched = _WAIT.fullmatch(preference.partition(";")[0].strip())
        if matched:
            return min(int(matched[1]), MAX_WAIT_SECONDS)
    return None
