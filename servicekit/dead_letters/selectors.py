"""Reading dead letters."""

from typing import Any

from django.db.models import Count, QuerySet

from servicekit.backoffice.bounded_count import BoundedCount, count_rows, rows_of
from servicekit.dead_letters.models import DeadLetter

GROUPED = 50_000
"""How many of the newest messages that wait are grouped."""


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


def groups() -> list[dict[str, Any]]:
    """Return the largest groups of the newest messages that wait, a hundred at most.

    Each has a `count`, the times of its `newest` and its `oldest` message, and its highest id as
    `up_to`.
    """
    return rows_of(
        """
        SELECT queue, routing_key, kind, count(*) AS count, max(last_seen) AS newest,
               min(first_seen) AS oldest, max(id) AS up_to
        FROM (
            SELECT queue, routing_key, kind, last_seen, first_seen, id FROM dead_letter
            WHERE status = 'WAITING' ORDER BY last_seen DESC, id DESC LIMIT %(grouped)s
        ) AS newest
        GROUP BY queue, routing_key, kind ORDER BY count DESC, up_to DESC LIMIT 100
        """,
        {"grouped": GROUPED},
    )
