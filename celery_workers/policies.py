"""How much is handled together, how often, and what is waited out: one place for all queues."""

from dataclasses import replace

from django.conf import settings
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    close_old_connections,
)

from servicekit.messaging.consumer import Policy


def is_trouble_of_ours(error: Exception) -> bool:
    """Return whether an error goes away by itself or by an operator, and is waited out.

    All that a database says, but for what the data itself causes: one that is read-only after a
    failover, or lacks a privilege or a column, must not turn accepted orders into dead letters.
    """
    if isinstance(error, (DataError, IntegrityError)):
        return False
    return isinstance(error, (DatabaseError, InterfaceError))


def _policy(**facts: int) -> Policy:
    return Policy(
        is_held=is_trouble_of_ours,
        before_batch=close_old_connections,
        pace_seconds=settings.WORKER_PACE_SECONDS,
        **facts,
    )


EVENTS = _policy(batch_limit=500)
# A message has up to 500 orders: a megabyte of them are some 4,000, about a second's work.
TASKS = _policy(batch_limit=50)
# Whatever its size, it has to go somewhere.
DEAD_LETTERS = replace(_policy(batch_limit=20), message_limit_bytes=None)
