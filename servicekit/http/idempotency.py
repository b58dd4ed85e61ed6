"""The `Idempotency-Key` header: the same request, sent again, is done once.

After draft-ietf-httpapi-idempotency-key-header: the key is the client's, a structured string such
as `"8e03978e-40d5-43dd-bc93-6894a57f9324"`. Without its quotes it is taken, too, because most
clients leave them out. A key belongs to the API key that it came with; all clients without one
share one space of keys.
"""

import re

from django.http import HttpRequest
from rest_framework.exceptions import APIException

MAX_KEY_LENGTH = 255

# Inside quotes, RFC 9651 (section 3.3.3) escapes quote and backslash; nobody's key needs them.
_KEY = re.compile(r"""(?P<quote>"?)(?P<key>[!#-\[\]-~]{1,255})(?P=quote)""")


class MalformedIdempotencyKey(APIException):
    """The header is there, and is not a key."""

    status_code = 400
    default_code = "malformed_idempotency_key"
    default_detail = (
        f"Idempotency-Key must be one string of 1 to {MAX_KEY_LENGTH} visible ASCII characters,"
        " without quotes, backslashes and spaces inside."
    )


def idempotency_key(request: HttpRequest) -> str | None:
    """Return the key of a request, with whose it is; None without one.

    :raises MalformedIdempotencyKey: if the header is not a key
    """
    header = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if header is None:
        return None
    matched = _KEY.fullmatch(header.strip())
    if matched is None:
        raise MalformedIdempotencyKey
    owner = getattr(request, "api_key", None)
    # With a space, which no client's key has in it.
    return f"{owner.prefix} {matched['key']}" if owner else matched["key"]
