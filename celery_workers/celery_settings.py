"""The Celery settings of both workers: no task is ever lost, and nothing is retried by counting.

Each line that differs from Celery's default says what the default would do.
"""

from typing import Any

from celery import Celery
from celery.signals import setup_logging
from django.conf import settings
from kombu import Queue

from celery_workers.policies import TASKS

_SILENCE_SECONDS = 5


@setup_logging.connect
def keep_logging(**_options: object) -> None:
    """Leave the logging as Django's settings made it; without a receiver Celery makes its own."""


def configure(app: Celery, *, queue: str | None = None) -> None:
    """Give an app the settings of a worker that takes tasks from one queue, or has none."""
    app.conf.update(_settings(app.main, queue))
    app.events.dispatcher_cls = "celery_workers.reconnect:PromptDispatcher"


def _settings(service: str, queue: str | None) -> dict[str, Any]:
    return {
        "broker_url": settings.BROKER_URL,
        "broker_heartbeat": 30,
        # Looks every 2 s, which is also when an idle worker notices that it is asked to stop.
        "broker_heartbeat_checkrate": 15,
        # By default the worker would give up and exit after 100 attempts.
        "broker_connection_max_retries": None,
        "broker_connection_retry_on_startup": True,
        # By default one that falls silent while a channel is made would be waited for, for ever.
        "broker_transport_options": {
            "read_timeout": _SILENCE_SECONDS,
            "write_timeout": _SILENCE_SECONDS,
        },
        "broker_channel_error_retry": True,
        "worker_consumer": "celery_workers.reconnect:BatchingConsumer",
        "broker_pool_acquire_timeout": 1,
        # A typo would otherwise make a queue that nobody reads.
        "task_create_missing_queues": False,
        "task_queues": [Queue(queue, durable=True)] if queue else [],
        "task_default_queue": queue,
        # Acknowledged when the work is committed, and never because it failed.
        "task_acks_late": True,
        "task_acks_on_failure": False,
        "task_acks_on_timeout": False,
        "task_reject_on_worker_lost": True,
        # In the thread that owns the connection, one batch at a time (docs/decisions/0003).
        "worker_pool": "solo",
        "worker_prefetch_multiplier": TASKS.prefetch,
        # Celery would close the database connection around every task, and a new one costs more
        # than the task. One that breaks is closed by the task itself.
        "CELERY_DB_REUSE_MAX": 10**9,
        # Nobody reads results: what a task has done is in the database.
        "task_ignore_result": True,
        "result_backend": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_enable_remote_control": settings.CELERY_REMOTE_CONTROL,
        "worker_send_task_events": False,
        # By names of its own, which its user may have (deploy/broker.py). Transient queues are
        # refused by RabbitMQ 4.3, and exclusive ones to the second worker of a machine.
        "control_exchange": service,
        "control_queue_exclusive": False,
        "control_queue_durable": True,
        "event_exchange": f"{service}.celeryev",
        "event_queue_prefix": f"{service}.celeryev",
        "event_queue_exclusive": False,
        "event_queue_durable": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "timezone": "UTC",
    }
