"""Django's registration of the parked messages."""

from django.apps import AppConfig


class ParkingConfig(AppConfig):
    """The parked messages, once in each service's database."""

    name = "servicekit.parking"
    label = "parking"
    verbose_name = "Failed messages"
    default_auto_field = "django.db.models.BigAutoField"
