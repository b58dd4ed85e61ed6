"""A worker's `/metrics`: what it has counted, and what it looks up when it is asked.

What is in tables is looked up here and not in the web services: those answer from shared files,
which only hold what was counted. Each look is bounded in time and in rows; what cannot be told is
left out. RabbitMQ tells the depths of queues itself.
"""

import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from wsgiref.simple_server import WSGIServer

from django.db import DatabaseError, InterfaceError, connection, transaction
from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from servicekit import metrics
from servicekit.dead_letters.selectors import waiting_by_queue
from servicekit.outbox.models import OutgoingEvent

logger = logging.getLogger(__name__)

COUNT_LIMIT = 10_000
"""Deeper than this, an outbox is just as much of an alarm, and counting it costs a table scan."""

_STATEMENT_TIMEOUT_MS = 500


class Tables(Collector):
    """How many events wait for the broker, and dead letters for a person."""

    def describe(self) -> list[Metric]:
        """Say nothing beforehand: otherwise it would be looked up to find the names."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Look into the tables."""
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = {_STATEMENT_TIMEOUT_MS}")
                events = OutgoingEvent.objects.order_by("id")[:COUNT_LIMIT].count()
                age = OutgoingEvent.objects.oldest_age() or timedelta()
                letters = waiting_by_queue(COUNT_LIMIT)
        except (DatabaseError, InterfaceError):
            return
        finally:
            # Each scrape has a thread of its own, which ends.
            connection.close()
        yield GaugeMetricFamily(
            metrics.OUTBOX_EVENTS,
            f"Events that wait for the broker to take them, counted up to {COUNT_LIMIT}.",
            value=events,
        )
        yield GaugeMetricFamily(
            metrics.OUTBOX_OLDEST_SECONDS,
            "How long the first of them has been waiting.",
            value=age.total_seconds(),
        )
        family = GaugeMetricFamily(
            metrics.DEAD_LETTERS,
            f"Messages that wait for a decision in the admin, counted up to {COUNT_LIMIT}.",
            labels=["queue"],
        )
        for queue, count in letters.items():
            family.add_metric([queue], count)
        yield family


def serve() -> WSGIServer | None:
    """Answer `/metrics` on `WORKER_METRICS_PORT` from a thread; without a port, do nothing.

    A port that is taken is no reason not to work: it is logged.
    """
    port = os.environ.get("WORKER_METRICS_PORT")
    if not port:
        return None
    address = os.environ.get("WORKER_METRICS_ADDRESS") or "127.0.0.1"
    try:
        server, _thread = start_http_server(int(port), address)
    except (OSError, ValueError) as error:
        logger.error("no metrics on %s:%s: %s", address, port, error)  # noqa: TRY400 - says it all
        return None
    REGISTRY.register(Tables())
    return server
