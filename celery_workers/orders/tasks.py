"""The tasks of the orders worker."""

import logging
import time
from collections.abc import Sequence

from celery.exceptions import Reject
from celery.worker import state
from django.db import close_old_connections

from celery_workers.background import TRANSIENT_ERRORS
from celery_workers.orders.app import app
from orders_project.orders import origins, services
from servicekit import metrics, telemetry
from servicekit.contracts.commands import AcceptedOrder, PersistOrders
from servicekit.contracts.events import MalformedMessage
from servicekit.messaging.backoff import Backoff

logger = logging.getLogger(__name__)

_recorder = telemetry.recorder()
_sizes = metrics.CONSUMER_BATCH.labels(PersistOrders.queue)
_ages = metrics.CONSUMER_MESSAGE_AGE.labels(PersistOrders.queue)
_parked = metrics.CONSUMER_PARKED.labels(PersistOrders.queue)


def _worker_is_stopping() -> bool:
    # An exit status once it stops, which may be 0.
    flags: tuple[object, object] = (state.should_stop, state.should_terminate)
    return any(flag is not None and flag is not False for flag in flags)


@app.task(name=PersistOrders.task_name)
def persist_orders(**payload: object) -> None:
    """Store the orders that one web process accepted together.

    :raises Reject: if the message is not what the contract says: it is parked; or if the worker
        stops while the database is away: it is delivered again
    """
    try:
        orders = PersistOrders.parse(payload).orders
    except MalformedMessage as error:
        logger.error("parking a task: %s", error)  # noqa: TRY400 - the message says it all
        _parked.inc()
        raise Reject(error, requeue=False) from error
    backoff = Backoff()
    while True:
        started = time.monotonic()
        try:
            services.place_orders(orders)
        except TRANSIENT_ERRORS as error:
            seconds = backoff.next_seconds()
            logger.warning("holding %d orders for %.1f s: %s", len(orders), seconds, error)
        else:
            _note(orders, seconds=time.monotonic() - started)
            return
        time.sleep(seconds)
        if _worker_is_stopping():
            raise Reject("stopping with orders in hand", requeue=True)
        close_old_connections()


def _note(stored: Sequence[AcceptedOrder], *, seconds: float) -> None:
    """Count and log a batch that is committed."""
    _sizes.observe(len(stored))
    now = time.time()
    for order in stored:
        _ages.observe(max(0.0, now - order.created_at.timestamp()))
        if _recorder is not None:
            _recorder.record_message(
                PersistOrders.queue,
                origins.origin_of(order),
                seconds=seconds,
                attributes={
                    "messaging.batch.message_count": len(stored),
                    "messaging.message.conversation_id": str(order.id),
                },
            )
    logger.info(
        "stored orders",
        extra={
            "queue": PersistOrders.queue,
            "messages": len(stored),
            "milliseconds": round(seconds * 1000, 1),
        },
    )
    if logger.isEnabledFor(logging.DEBUG):
        for order in stored:
            logger.debug("stored an order", extra=origins.log_fields(order))
