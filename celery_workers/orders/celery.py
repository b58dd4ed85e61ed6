"""The orders worker: stores orders, settles them, and relays the order service's events."""

import os

import django
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orders_project.config.settings")
# Each thread of a worker keeps one connection, and a batch may take longer than a request.
os.environ.setdefault("DATABASE_POOL_SIZE", "0")
os.environ.setdefault("DATABASE_STATEMENT_TIMEOUT_MS", "10000")
django.setup()

from celery_workers.bootsteps import run_in_background  # noqa: E402 - Django comes first
from celery_workers.celery_settings import configure  # noqa: E402
from orders_project.orders import watchdog  # noqa: E402
from orders_project.orders.commands import PersistOrders  # noqa: E402
from orders_project.orders.subscriptions import SUBSCRIPTIONS  # noqa: E402

app = Celery("orders")
configure(app, queue=PersistOrders.queue)
app.conf.update(imports=["celery_workers.orders.tasks"])
run_in_background(app, SUBSCRIPTIONS, watchdog.loops)
