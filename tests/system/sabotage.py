"""Runs a process of the system with one of its safeguards switched off, from outside.

`python -m tests.system.sabotage NAME celery …` is `python -m celery …` without the safeguard.
"""

import runpy
import sys
import time
from types import SimpleNamespace
from typing import Any

import django


def nothing() -> None:
    """Leave all as it is."""


def confirms() -> None:
    from servicekit.messaging.publisher import ConfirmingPublisher

    ConfirmingPublisher._await_confirms = lambda publisher: publisher._unconfirmed.clear()


def mandatory() -> None:
    from servicekit.messaging import envelope

    frame = envelope._frame

    def without_its_flag(kind: int, channel: int, payload: bytes) -> bytes:
        return frame(kind, channel, payload[:-1] + b"\x00" if kind == 1 else payload)

    envelope._frame = without_its_flag


def acknowledgement_after_commit() -> None:
    from servicekit.messaging.consumer import Inbox

    apply = Inbox._apply

    def acknowledge_and_apply(inbox: Any, batch: Any) -> None:
        last, _ = batch[-1]
        last.channel.basic_ack(last.delivery_tag, multiple=True)
        last.channel = SimpleNamespace(basic_ack=lambda *_, **__: None)
        apply(inbox, batch)

    Inbox._apply = acknowledge_and_apply


def redelivery_of_what_the_dead_held() -> None:
    from amqp import Channel

    consume = Channel.basic_consume
    Channel.basic_consume = lambda *args, **options: consume(*args, **{**options, "no_ack": True})
    Channel.basic_ack = lambda *_, **__: None


def deduplication() -> None:
    from products_project.products.models import ReservationManager

    insert = ReservationManager.insert
    ReservationManager.decided = lambda *_: {}
    ReservationManager.insert = lambda manager, rows: insert(manager, rows) * 0 + len(rows)


def versions_of_cached_values() -> None:
    from django_redis import get_redis_connection

    from products_project.products.versioned_cache import VersionedCache

    def plain_set(cache: Any, values: Any, **_read_at: float) -> None:
        for identity, versioned in values:
            key = f"{cache._prefix}:{identity}"
            get_redis_connection("default").mset(
                {key: versioned.value, f"{key}:version": versioned.version}
            )

    VersionedCache.set_if_newer = plain_set


def row_lock() -> None:
    from products_project.products.models import Product, ProductManager

    def look(_: object, ids: Any) -> dict[Any, Product]:
        seen = Product.objects.in_bulk(set(ids))
        time.sleep(0.05)
        return seen

    ProductManager.lock = look


def main(name: str, program: str, *arguments: str) -> None:
    """Run a program, sabotaged once Django is set up."""
    set_up = django.setup

    def set_up_and_sabotage(*args: Any, **options: Any) -> None:
        set_up(*args, **options)
        globals()[name]()

    django.setup = set_up_and_sabotage
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
