"""The products worker has no tasks: whatever comes into its queue is parked."""

from uuid import uuid4

import amqp
import pytest

from servicekit.messaging.celery_protocol import task_message
from servicekit.parking.models import ParkedMessage
from tests.servicekit import private_broker
from tests.servicekit.private_broker import eventually
from tests.servicekit.worker import running_worker

QUEUE = "products.tasks"
TASK = task_message(task="orders.persist_orders", queue=QUEUE, task_id=uuid4(), kwargs={})
MESSAGES = [
    (TASK.body, TASK.headers, "application/json"),
    (b"hello", {"task": ["a list"]}, "text/plain"),
    (b"\x80\x04K\x01.", None, "application/x-python-serialize"),
    (b"", {}, "application/json"),
]


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest.mark.django_db(transaction=True)
def test_every_message_is_parked_and_none_ends_the_worker(tmp_path, queue_type):
    with (
        private_broker.virtual_host(queue_type=queue_type) as broker,
        running_worker("products", broker, tmp_path),
    ):
        with broker.channel() as channel:
            for body, headers, content_type in MESSAGES:
                # Confirmed: a quorum queue may lose what its channel ends before it has it.
                channel.basic_publish_confirm(
                    amqp.Message(body, application_headers=headers, content_type=content_type),
                    routing_key=QUEUE,
                )
        eventually(lambda: ParkedMessage.objects.count() == len(MESSAGES))

        assert {bytes(each.body) for each in ParkedMessage.objects.all()} == {
            body for body, _, _ in MESSAGES
        }
        for parked in ParkedMessage.objects.all():
            assert parked.queue == QUEUE
            assert parked.reason.startswith("not the task")
