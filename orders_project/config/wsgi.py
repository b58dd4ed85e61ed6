"""The order service as a WSGI application."""

import os

from servicekit.http import handler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orders_project.config.settings")
application = handler.application()
