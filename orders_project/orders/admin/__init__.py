"""The admin of the order service, for the people who run the shop."""

from orders_project.orders.admin import orders

__all__ = ["orders"]
