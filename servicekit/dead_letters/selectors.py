"""Reading dead letters."""

from servicekit.backoffice.bounded_count import BoundedCount, count_rows
from servicekit.dead_letters.models import ParkedMessage


def parked_count() -> BoundedCount:
    """Return how many messages wait for a decision."""
    waiting = ParkedMessage.objects.filter(status=ParkedMessage.Status.PARKED)
    return count_rows(waiting.order_by("-last_seen", "-id"))
