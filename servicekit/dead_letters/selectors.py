"""Reading dead letters."""

from django.db.models import Count, QuerySet

from servicekit.backoffice.bounded_count import BoundedCount, count_rows
from servicekit.dead_letters.models import DeadLetter


def waiting_letters() -> QuerySet[DeadLetter]:
    """Return what waits for a decision, the latest first."""
    waiting = DeadLetter.objects.filter(status=DeadLetter.Status.WAITING)
    return waiting.order_by("-last_seen", "-id")


def waiting_count() -> BoundedCount:
    """Return how many messages wait for a decision."""
    return count_rows(waiting_letters())


def waiting_by_queue(limit: int) -> dict[str, int]:
    """Return how many of the latest `limit` that wait for a decision came from each queue."""
    latest = DeadLetter.objects.filter(pk__in=waiting_letters().values("pk")[:limit])
    return dict(latest.values_list("queue").annotate(Count("pk")))
