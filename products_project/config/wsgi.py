"""The product service as a WSGI application."""

import os

from servicekit.http import handler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "products_project.config.settings")
application = handler.application()
