"""The order service as a WSGI application."""

import os

from django.core.wsgi import get_wsgi_application

from servicekit.http.bodies import BodyReader

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orders_project.config.settings")
application = BodyReader(get_wsgi_application())
