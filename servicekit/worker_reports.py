"""What the workers have in hand: each tells it every second, so that its silence tells as well.

RabbitMQ tells a service's user how many messages wait in a queue, and not how many a consumer has
taken. Through Redis, because a worker that hangs cannot be asked; without Redis, nobody knows.
"""

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from django.conf import settings

from servicekit.caching.redis import UNAVAILABLE, best_effort
from servicekit.messaging.consumer import InHand, in_hand

_FORGOTTEN_AFTER_SECONDS = 3600


@dataclass(frozen=True)
class Report:
    """What a worker has in hand of each queue, at a Unix time."""

    at: float
    queues: dict[str, InHand]


_decode = msgspec.json.Decoder(Report).decode


def tell() -> None:
    """Report for this process."""
    name, report = f"{socket.gethostname()}:{os.getpid()}", Report(time.time(), in_hand())
    best_effort(lambda client: client.hset(_key(), name, msgspec.json.encode(report)))


def newest() -> list[Report]:
    """Return the last report of each worker of the last hour, the newest first."""
    found = best_effort(lambda client: client.hgetall(_key()))
    reports = []
    for name, body in {} if found is UNAVAILABLE else found.items():
        with suppress(msgspec.MsgspecError):
            report = _decode(body)
            if time.time() - report.at < _FORGOTTEN_AFTER_SECONDS:
                reports.append(report)
                continue
        best_effort(partial(_forget, name=name))
    return sorted(reports, key=lambda report: report.at, reverse=True)


def _forget(client: Any, *, name: bytes) -> None:
    client.hdel(_key(), name)


def _key() -> str:
    return f"workers:{settings.SERVICE_NAME}"
