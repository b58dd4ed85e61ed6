"""The products worker: takes the stock of orders, and relays the product service's events."""

import os

import django
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "products_project.config.settings")
# Each thread of a worker keeps one connection, and a batch may take longer than a request.
os.environ.setdefault("DATABASE_POOL_SIZE", "0")
os.environ.setdefault("DATABASE_STATEMENT_TIMEOUT_MS", "10000")
django.setup()

from celery_workers.bootsteps import run_in_background  # noqa: E402 - Django comes first
from celery_workers.celery_settings import configure  # noqa: E402
from products_project.products import figures  # noqa: E402
from products_project.products.subscriptions import SUBSCRIPTIONS  # noqa: E402

app = Celery("products")
configure(app)
run_in_background(app, SUBSCRIPTIONS, figures.loops)
