"""Django's registration of the admin's common parts."""

from django.apps import AppConfig


class BackofficeConfig(AppConfig):
    """Templates and static files; listed before unfold, whose templates it replaces."""

    name = "servicekit.backoffice"
    label = "backoffice"
