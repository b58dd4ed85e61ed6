"""A database that takes what it is sent and never answers: waited for, with a living worker."""

import os
import time
from urllib.parse import urlsplit

import amqp
import msgspec
import pytest
from django.db import connection

from products_project.products.models import Reservation
from tests.servicekit import private_broker
from tests.servicekit.private_broker import Line, eventually
from tests.servicekit.worker import running_worker

PATIENCE_SECONDS = 60


@pytest.mark.django_db(transaction=True)
def test_is_given_up_and_asked_again_until_it_speaks(tmp_path, lamp):
    url = urlsplit(os.environ["PRODUCTS_DATABASE_URL"])
    line = Line(url.hostname or "", url.port or 5432)
    address = f"{url.username}:{url.password}@127.0.0.1:{line.port}"
    through_the_line = url._replace(
        netloc=address, path=f"/{connection.settings_dict['NAME']}"
    ).geturl()
    with (
        private_broker.virtual_host() as broker,
        running_worker(
            "products",
            broker,
            tmp_path,
            PRODUCTS_DATABASE_URL=through_the_line,
            DATABASE_STATEMENT_TIMEOUT_MS="500",
        ),
    ):
        line.fall_silent()
        body = msgspec.json.encode({"orderId": 7, "productId": lamp.id, "quantity": 3})
        with broker.channel() as channel:
            channel.basic_publish(amqp.Message(body), "order.exchange", "order.created")
        log = tmp_path / "log"
        # Held again and again, each time after a deadline.
        eventually(
            lambda: log.read_text(errors="replace").count("holding 1 messages") >= 2,
            within_seconds=PATIENCE_SECONDS,
        )
        now = time.time()
        # Waiting for a server is living.
        eventually(
            lambda: (tmp_path / "alive").stat().st_mtime > now, within_seconds=PATIENCE_SECONDS
        )
        line.speak_again()

        eventually(
            lambda: Reservation.objects.filter(order_id="7", outcome="RESERVED").exists(),
            within_seconds=PATIENCE_SECONDS,
        )
    line.close()
