"""The one place where ids are made."""

from uuid import UUID

from uuid_utils import compat


def new_id() -> UUID:
    """Return a UUIDv7 (RFC 9562): unique, and ordered by the millisecond it was made in."""
    # A function of ours, because migrations record the import path of a field's default.
    return compat.uuid7()
