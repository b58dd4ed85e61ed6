"""What a plain `pytest tests/orders` stands on: the settings of that service, and private servers.

Not those of a running shop: its workers would take what tests leave in Redis and RabbitMQ.
"""

import atexit
import os

import django
import pytest

from deploy.failure import DeployFailure
from deploy.native.ports import Ports
from deploy.native.stack import Stack
from deploy.settings import ROOT

_made: list[Stack] = []


def provide(service: str) -> None:
    """Set Django up for the tests of a service, on the servers of the environment or on own ones.

    :raises pytest.UsageError: if this process has the settings of the other service
    """
    settings = f"{service}_project.config.settings"
    if os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings) != settings:
        raise pytest.UsageError(
            "The services have settings of their own, and a process takes one:"
            " `pytest tests/orders`, or `pytest tests/products tests/servicekit tests/deploy"
            " tests/tools`. `make test` runs all."
        )
    # Of tests alone: `make env` names the servers of the shop, and not this.
    if "RABBITMQ_MANAGEMENT_URL" not in os.environ:
        _made.append(Stack(ROOT / ".run" / f"tests-{os.getpid()}", Ports.free()))
        os.environ.update(_made[0].environment)
        atexit.register(_made[0].remove)
    os.environ["DATABASE_POOL_SIZE"] = "0"
    django.setup()


def start() -> None:
    """Start the private servers, if there are to be any; `make test-fast` wants none."""
    try:
        for stack in () if "NO_SERVERS" in os.environ else _made:
            stack.start_servers()
    except DeployFailure as failure:
        pytest.exit(str(failure), returncode=1)
