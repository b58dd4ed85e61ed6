"""The admin of the product service, for the people who run the shop."""

from products_project.products.admin import catalogue, ledgers

__all__ = ["catalogue", "ledgers"]
