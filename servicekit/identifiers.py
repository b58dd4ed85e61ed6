"""The one place where ids are made, and their time is read."""

from uuid import UUID

from uuid_utils import compat


def new_id() -> UUID:
    """Return a UUIDv7 (RFC 9562): unique, and ordered by the millisecond it was made in."""
    # A function of ours, because migrations record the import path of a field's default.
    return compat.uuid7()


def made_at(id_: UUID) -> float | None:
    """Return when a UUIDv7 was made, in seconds since 1970; None for any other UUID."""
    return (id_.int >> 80) / 1000 if id_.version == 7 else None  # noqa: PLR2004 - the 7 of UUIDv7
