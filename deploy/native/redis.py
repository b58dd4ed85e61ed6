"""A private Redis, or Valkey, which speaks the same language."""

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from deploy.native.programs import Program
from deploy.settings import ROOT

_SHARED_CONFIGURATION = ROOT / "deploy" / "redis" / "redis.conf"


def binary() -> str | None:
    """Return the server's program."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


@dataclass(frozen=True, kw_only=True)
class Redis:
    """One Redis server below `directory`, listening on 127.0.0.1."""

    directory: Path
    port: int

    def prepare(self) -> None:
        """Write the configuration."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._configuration.write_text(
            _SHARED_CONFIGURATION.read_text()
            + f'\nbind 127.0.0.1\nport {self.port}\ndaemonize no\ndir "{self.directory}"\n'
        )

    def program(self) -> Program:
        """Describe the server to supervisord."""
        return Program(
            name="redis",
            command=(binary() or "redis-server", str(self._configuration)),
            environment={},
            directory=self.directory,
            is_ready=self._is_ready,
            address=f"127.0.0.1:{self.port}",
        )

    @property
    def _configuration(self) -> Path:
        return self.directory / "redis.conf"

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
