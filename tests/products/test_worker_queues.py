"""What the admin and the broker take for the worker's queues is what the worker consumes."""

from django.conf import settings

from deploy import broker


def test_all_queues_of_the_worker_are_shown():
    from celery_workers.products.celery import app  # noqa: PLC0415 - it sets Django up, which is done by now
    from celery_workers.products.subscriptions import SUBSCRIPTIONS  # noqa: PLC0415

    consumed = [each.queue for each in SUBSCRIPTIONS] + [each.name for each in app.conf.task_queues]

    assert sorted(settings.WORKER_QUEUES) == sorted(consumed)


def test_the_broker_is_told_of_all_of_them():
    assert set(settings.WORKER_QUEUES) == set(broker.QUEUES_OF["products"])
