"""What the admin and the broker take for the worker's queues is what the worker consumes."""

from importlib import import_module

from django.conf import settings

from deploy import broker

SERVICE = settings.SETTINGS_MODULE.partition("_")[0]


def test_all_queues_of_the_worker_are_shown():
    app = import_module(f"celery_workers.{SERVICE}.celery").app
    subscriptions = import_module(f"celery_workers.{SERVICE}.subscriptions").SUBSCRIPTIONS
    consumed = [
        *(each.queue for each in subscriptions),
        *(each.name for each in app.conf.task_queues),
    ]

    assert sorted(settings.WORKER_QUEUES) == sorted(consumed)


def test_the_broker_is_told_of_all_of_them():
    assert set(settings.WORKER_QUEUES) == set(broker.QUEUES_OF[SERVICE])
