"""What the tests of the product service share."""

import os

import hypothesis
import pytest
from django.db import connections

from products_project.products import services
from products_project.products.models import Product
from servicekit.breaker import Breaker
from tests.servicekit.private_broker import unused_port

hypothesis.settings.register_profile("with servers", database=None, deadline=None)
hypothesis.settings.load_profile("with servers")


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """Give every run a database of its own, and patience with a busy machine."""
    settings = connections["default"].settings_dict
    settings["TEST"]["NAME"] = f"test_{settings['NAME']}_{os.getpid()}"
    settings["OPTIONS"]["options"] += " -c statement_timeout=20000 -c lock_timeout=20000"


@pytest.fixture
def without_redis(settings, monkeypatch) -> None:
    """Nothing listens where Redis should be."""
    monkeypatch.setattr("servicekit.caching.redis._breaker", Breaker(pause_seconds=1.0))
    address = f"redis://127.0.0.1:{unused_port()}/0"
    settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": address}}


@pytest.fixture
def lamp(db) -> Product:  # noqa: ARG001 - a product needs a database
    return services.create_product(name="Lamp", price=190_000, qty=10)
