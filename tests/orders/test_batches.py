"""The connection of a Celery worker, as the inbox of its tasks uses it."""

import time
from types import SimpleNamespace

import pytest
from amqp.exceptions import AccessRefused, AMQPError
from kombu import Connection

from celery_workers.batches import CeleryPump
from celery_workers.reconnect import RemoteControl
from orders_project.orders.commands import PersistOrders
from servicekit.messaging.publisher import ConfirmingPublisher
from tests.orders.ordering import a_task
from tests.servicekit import private_broker
from tests.servicekit.private_broker import eventually
from tests.servicekit.worker import assert_all_queues_are_known, database_url, running_worker
from tools.chaos.proxy import Proxy


def test_a_worker_needs_no_right_to_be_controlled(caplog):
    def refuse(_worker: object) -> None:
        raise AccessRefused("no right")

    control = RemoteControl.__new__(RemoteControl)
    control._start_mailbox = refuse
    control._start_if_allowed(SimpleNamespace(channel_errors=(AccessRefused,)))

    assert "without remote control" in caplog.text


class TestCeleryPump:
    def test_keeps_the_connection_while_a_batch_is_held_and_no_more_can_arrive(self, broker):
        kept, lost = (Connection(broker.url, heartbeat=1) for _ in range(2))
        with kept, lost:
            pump = CeleryPump(SimpleNamespace(connection=kept))
            channel, other_channel = kept.channel(), lost.channel()
            ends_at = time.monotonic() + 4
            while time.monotonic() < ends_at:
                pump.beat()
                time.sleep(0.2)

            channel.exchange_declare("it-works", "topic", durable=True)
            channel.exchange_delete("it-works")
            # The negative control: without a sign of life, the broker hangs up.
            with pytest.raises((AMQPError, OSError)):
                other_channel.exchange_declare("it-works", "topic", durable=True)
            lost.collect()

    def test_returns_whether_anything_came_in_time(self, broker):
        queue = "of-the-pump"
        broker.declare_queue(queue)
        with Connection(broker.url) as connection:
            pump = CeleryPump(SimpleNamespace(connection=connection))
            taken = []
            channel = connection.channel()
            channel.basic_consume(queue, no_ack=True, callback=taken.append)

            assert not pump.drain(0.05)
            channel.basic_publish(channel.prepare_message(b"{}"), routing_key=queue)
            assert pump.drain(5)
            assert len(taken) == 1
        broker.delete_queue(queue)


@pytest.mark.django_db(transaction=True)
class TestAWorker:
    def test_gives_back_what_it_holds_when_it_is_asked_to_end(self, accepted_order, tmp_path):
        log = tmp_path / "log"
        with private_broker.virtual_host() as broker:
            with (
                Proxy(database_url("orders")) as line,
                running_worker("orders", broker, tmp_path, ORDERS_DATABASE_URL=line.url),
            ):
                line.refuse()
                line.cut()
                publisher = ConfirmingPublisher(broker.url)
                publisher.publish([a_task([accepted_order()])])
                publisher.close()
                eventually(lambda: "holding 1 messages" in log.read_text(), within_seconds=60)

            assert "stopped with messages in hand" in log.read_text()
            eventually(lambda: broker.count(PersistOrders.queue) == 1)

    def test_consumes_the_queues_that_others_take_for_its_own(self):
        assert_all_queues_are_known("orders")
