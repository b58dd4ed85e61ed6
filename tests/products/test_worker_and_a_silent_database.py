"""A database that takes what it is sent and never answers: waited for, with a living worker."""

import time

import amqp
import msgspec
import pytest

from products_project.products.models import Reservation
from tests.servicekit import private_broker
from tests.servicekit.private_broker import eventually
from tests.servicekit.worker import assert_all_queues_are_known, database_url, running_worker
from tools.chaos.proxy import Proxy


@pytest.mark.django_db(transaction=True)
def test_is_given_up_and_asked_again_until_it_speaks(tmp_path, lamp):
    with (
        Proxy(database_url("products")) as line,
        private_broker.virtual_host() as broker,
        running_worker(
            "products", broker, tmp_path,
            PRODUCTS_DATABASE_URL=line.url, DATABASE_STATEMENT_TIMEOUT_MS="500",
        ),
    ):  # fmt: skip
        line.blackhole()
        body = msgspec.json.encode({"orderId": 7, "productId": lamp.id, "quantity": 3})
        with broker.channel() as channel:
            channel.basic_publish(amqp.Message(body), "order.exchange", "order.created")
        log = tmp_path / "log"
        # Held again and again, each time after a deadline.
        eventually(lambda: log.read_text(errors="replace").count("holding 1 messages") >= 2)
        now = time.time()
        # Waiting for a server is living.
        eventually(lambda: (tmp_path / "alive").stat().st_mtime > now)
        line.heal()

        eventually(Reservation.objects.filter(order_id="7", outcome="RESERVED").exists)


def test_the_queues_of_the_worker_are_those_that_others_take_for_its_own():
    assert_all_queues_are_known("products")
