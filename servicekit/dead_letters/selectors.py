"""Reading dead letters."""

from servicekit.backoffice.bounded_count import BoundedCount, count_rows
from servicekit.dead_letters.models import DeadLetter


def waiting_count() -> BoundedCount:
    """Return how many messages wait for a decision."""
    waiting = DeadLetter.objects.filter(status=DeadLetter.Status.WAITING)
    return count_rows(waiting.order_by("-last_seen", "-id"))
