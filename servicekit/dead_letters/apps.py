"""Django's registration of the dead letters."""

from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    """The dead letters, once in each service's database."""

    name = "servicekit.dead_letters"
    # By this name installations know its migrations, tables and pages.
    label = "parking"
    verbose_name = "Failed messages"
