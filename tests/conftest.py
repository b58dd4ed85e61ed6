"""What the tests share."""

import os
from collections.abc import Callable, Iterator
from uuid import uuid4

import hypothesis
import pytest

from servicekit.breaker import Breaker
from tests import own_servers
from tests.system.whole_system import shop, stack

__all__ = ["shop", "stack"]

hypothesis.settings.register_profile("with servers", database=None, deadline=None)
hypothesis.settings.load_profile("with servers")
# For a night: --hypothesis-profile=thorough
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("with servers"), max_examples=1500
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    if not session.config.option.collectonly:
        own_servers.start()


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """Give every run a database of its own, and patience with a busy machine."""
    from django.db import connections  # noqa: PLC0415 - the tests of the whole system have no Django

    settings = connections["default"].settings_dict
    settings["TEST"]["NAME"] = f"test_{settings['NAME']}_{os.getpid()}"
    settings["OPTIONS"]["options"] += " -c statement_timeout=20000 -c lock_timeout=20000"
    settings["OPTIONS"]["answer_seconds"] = 22
    # As in the web processes: the thread of the group commit lets go of its connection after
    # each batch, and the database can be dropped in the end.
    settings["CONN_MAX_AGE"] = 0


@pytest.fixture(scope="session")
def broker() -> Iterator[object]:
    from tests.servicekit.private_broker import virtual_host  # noqa: PLC0415 - as above

    with virtual_host() as host:
        yield host


@pytest.fixture
def client() -> object:
    from django.test import Client  # noqa: PLC0415 - as above

    # As a browser is treated: what is exempt from CSRF checks has to be so by itself.
    return Client(enforce_csrf_checks=True, raise_request_exception=False)


@pytest.fixture
def staff(django_user_model) -> Callable[..., object]:
    """Return a function that logs somebody in to the admin who may do no more than is said."""
    from django.contrib.auth.models import Permission  # noqa: PLC0415 - as above
    from django.test import Client  # noqa: PLC0415 - as above

    def log_in(*permissions: str) -> Client:
        user = django_user_model.objects.create_user("ada", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client()
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def without_redis(settings, monkeypatch) -> None:
    """Nothing listens where Redis should be."""
    from tests.servicekit.private_broker import unused_port  # noqa: PLC0415 - as above

    monkeypatch.setattr("servicekit.caching.redis._breaker", Breaker("it", pause_seconds=1.0))
    address = f"redis://127.0.0.1:{unused_port()}/0"
    settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": address}}


@pytest.fixture
def api_key(monkeypatch) -> Callable[..., dict[str, str]]:
    """Return a function that makes an API key for some scopes, and the header that shows it."""
    from servicekit.access import services  # noqa: PLC0415 - as above
    from servicekit.http import access  # noqa: PLC0415 - as above

    def make(*scopes: str) -> dict[str, str]:
        _, key = services.make_key(name="a partner", scopes=scopes)
        # Or it would be known in a second only.
        monkeypatch.setattr(access, "_known_keys", access.KnownKeys(access._read_keys))
        return {"Authorization": f"Bearer {key}"}

    return make


@pytest.fixture
def rate_limits(settings, monkeypatch) -> Callable[..., None]:
    """Return a function that sets rate limits, and counts from the beginning."""
    from servicekit.access.limits import Limiter  # noqa: PLC0415 - as above
    from servicekit.http import access  # noqa: PLC0415 - as above

    def limit(*, key: str = "", address: str = "") -> None:
        settings.RATE_LIMIT_PER_KEY, settings.RATE_LIMIT_PER_ADDRESS = key, address
        fresh = Limiter(str(uuid4()))
        monkeypatch.setattr(access, "_limiter", lambda: fresh)

    return limit
