"""Django's registration of the outbox."""

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    """The outbox, once in each service's database."""

    name = "servicekit.outbox"
    label = "outbox"
    default_auto_field = "django.db.models.BigAutoField"
