"""Two systems that start at the same moment, each in a directory of its own."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from deploy.native.ports import Ports
from deploy.native.stack import Stack


@pytest.fixture
def listening():
    with ExitStack() as sockets:
        yield sockets


def test_two_systems_that_start_together_choose_different_ports(tmp_path, monkeypatch, listening):
    def listen_late(stack: Stack) -> None:
        """Take a while from the choice of the port, as PostgreSQL does that makes its data."""
        time.sleep(0.3)
        listening.enter_context(socket.create_server(("127.0.0.1", stack.ports.redis)))

    monkeypatch.setattr(Stack, "_start_servers", listen_late)
    ports = Ports.free()
    stacks = [Stack(tmp_path / name, ports) for name in ("one", "other")]

    with ThreadPoolExecutor() as pool:
        list(pool.map(Stack.start_servers, stacks))

    one, other = (stack.ports.redis for stack in stacks)
    assert one != other
