"""What the tests of the product service share."""

from tests import own_servers

own_servers.provide("products")

import pytest

from products_project.products import services
from products_project.products.models import Product


@pytest.fixture
def lamp(db) -> Product:  # noqa: ARG001 - a product needs a database
    return services.create_product(name="Lamp", price=190_000, qty=10)
