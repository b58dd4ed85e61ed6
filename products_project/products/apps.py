"""Django's registration of the products."""

from django.apps import AppConfig


class ProductsConfig(AppConfig):
    """Products and their stock."""

    name = "products_project.products"
    label = "products"
