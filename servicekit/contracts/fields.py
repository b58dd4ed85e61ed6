"""The types of the fields that several messages share, with the bounds the databases have."""

import json
import re
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta

MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1
# RFC 8259, section 6: integers up to here mean the same to every JSON reader.
MAX_JSON_INTEGER = 2**53 - 1

Quantity = Annotated[int, Meta(ge=1, le=MAX_INT32)]
# People cannot raise a stock beyond what a quantity may be; what is given back can always be.
Stock = Annotated[int, Meta(ge=0, le=MAX_JSON_INTEGER)]
Money = Annotated[int, Meta(ge=0, le=MAX_INT64)]
Version = Annotated[int, Meta(ge=0, le=MAX_INT64)]

UUIDText = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
"""An id in an answer: text already, so that nothing is converted on the way out."""

Timestamp = Annotated[
    str,
    Meta(
        description="UTC, with milliseconds (RFC 3339).",
        extra_json_schema={"format": "date-time"},
        examples=["2026-11-05T12:00:00.000Z"],
    ),
]

OrderReference = (
    Annotated[int, Meta(ge=-(2**63), le=MAX_INT64)]
    | Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,64}$(?!\n)")]
)
"""An order's id as its own order system writes it: ours are UUIDs, older systems' integers."""


# The one spelling in which a UUID is its own key.
_LOWER_CASE_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CANONICAL_UUID_LENGTH = 36


def as_uuid(reference: int | str) -> UUID | None:
    """Return the id of an order that can be ours, or None for another system's."""
    if not isinstance(reference, str) or len(reference) != _CANONICAL_UUID_LENGTH:
        return None
    try:
        return UUID(reference)
    except ValueError:
        return None


def order_key(reference: int | str) -> str:
    """Return the one spelling of an order's id under which it is decided once."""
    if isinstance(reference, str) and _LOWER_CASE_UUID.fullmatch(reference):
        return reference
    return str(as_uuid(reference) or reference)


class DoubledName(ValueError):
    """A JSON object has a name twice: which of them counts, nobody can tell (RFC 8259, 4)."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} is there twice")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise DoubledName(next(name for name in names if names.count(name) > 1))
    return members


decode_strictly = json.JSONDecoder(object_pairs_hook=_without_doubles).decode
"""Return the value in a JSON text.

:raises DoubledName: if an object in it has a name twice
"""
