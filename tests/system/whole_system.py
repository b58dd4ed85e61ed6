"""A whole system for tests, beside whatever else runs on the machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.native.ports import Ports
from deploy.settings import ROOT
from tests.system.shop import Shop
from tools.chaos.harness import Harness


@pytest.fixture(scope="session")
def stack() -> Iterator[Harness]:
    """Four kinds of process and three servers, started as `make up` starts them."""
    directory = ROOT / ".run" / f"system-test-{os.getpid()}"
    stack = Harness(directory, Ports.free())
    try:
        stack.up()
        yield stack
    finally:
        logs = Path(os.environ.get("TEST_LOGS", ""))
        if os.environ.get("TEST_LOGS"):
            directory.joinpath("logs").rename(logs)
        stack.remove()


@pytest.fixture
def shop(stack: Harness) -> Iterator[Shop]:
    """A client of the system, which is whole again when the test begins and when it ends."""
    stack.wait_ready()
    yield Shop(stack.environment)
    stack.wait_ready()
