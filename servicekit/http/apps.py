"""The pages of the HTTP API as a Django application: its templates and static files."""

from django.apps import AppConfig


class HTTPConfig(AppConfig):
    """Registers what `servicekit.http` shows to browsers."""

    name = "servicekit.http"
    label = "servicekit_http"
