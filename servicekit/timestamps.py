"""Times as they appear on the wire."""

from datetime import UTC, datetime, timedelta


def now_in_milliseconds() -> datetime:
    """Return the present moment in UTC, cut to the milliseconds that the wire can carry."""
    # Cut when it is made: a time that is stored with more than it was acknowledged with
    # would differ from the acknowledgement when it is read back.
    now = datetime.now(UTC)
    return now - timedelta(microseconds=now.microsecond % 1000)


def rfc3339(moment: datetime) -> str:
    """Render an aware datetime as RFC 3339 UTC with milliseconds: `2026-11-23T09:30:00.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[: -len("+00:00")] + "Z"


def read_moment(text: str | None) -> datetime | None:
    """Return the time in somebody's message in UTC; None where it says none that can be."""
    try:
        moment = datetime.fromisoformat(text) if text else None
        if moment is None or moment.tzinfo is None:
            return moment and moment.replace(tzinfo=UTC)
        # PostgreSQL would take the year 10000, or one before Christ, and nobody could read it back.
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
