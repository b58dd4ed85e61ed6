"""Django's registration of the dead letters."""

from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    """The dead letters, once in each service's database."""

    name = "servicekit.dead_letters"
    verbose_name = "Failed messages"
