"""Django's registration of the orders."""

from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """Orders, from accepted to final."""

    name = "orders_project.orders"
    label = "orders"
