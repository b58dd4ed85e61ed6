"""Two systems that start at the same moment, each in a directory of its own."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from deploy.console import Progress
from deploy.docker import DockerEngine
from deploy.failure import DeployFailure
from deploy.native.ports import Ports, main
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


class TestTakenPorts:
    @pytest.fixture
    def ports(self, listening):
        ports = Ports.free()
        for port in (ports.product, ports.order):
            listening.enter_context(socket.create_server(("127.0.0.1", port)))
        return ports

    @pytest.fixture
    def all_of_them(self, ports):
        return rf"{ports.product} \(PRODUCT_PORT\).*{ports.order} \(ORDER_PORT\)"

    def test_are_all_named_before_anything_is_installed(
        self, tmp_path, monkeypatch, ports, all_of_them
    ):
        monkeypatch.setattr(Stack, "_start_servers", lambda _: pytest.fail("it went on"))

        with pytest.raises(DeployFailure, match=all_of_them):
            Stack(tmp_path, ports).up()

    def test_are_all_named_before_an_image_is_built(self, monkeypatch, ports, all_of_them):
        def compose(_engine: DockerEngine, verb: str, *_: str, **__: bool) -> str:
            assert verb == "ps"
            return ""

        monkeypatch.setattr(DockerEngine, "_compose", compose)
        settings = {f"{name.upper()}_PORT": str(port) for name, port in ports.to_json().items()}

        with pytest.raises(DeployFailure, match=all_of_them):
            DockerEngine(settings, Progress()).up()

    def test_are_all_named_before_there_is_an_environment(self, monkeypatch, capsys):
        monkeypatch.setattr("deploy.native.ports.is_free", lambda *_: False)

        assert main() == 1
        assert "3001 (PRODUCT_PORT), 3002 (ORDER_PORT)" in capsys.readouterr().err
