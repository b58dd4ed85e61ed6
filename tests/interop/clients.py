"""Clients in other languages, which know of us what any stranger does."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.settings import ROOT
from tests.system.shop import eventually

SOURCES = Path(__file__).parent
BUILT = ROOT / ".run" / "interop"

Message = dict[str, Any]


def node() -> list[str]:
    """Install what the client in Node needs; return the command that runs it."""
    _require("node", "npm")
    place = shutil.copytree(SOURCES / "node", BUILT / "node", dirs_exist_ok=True)
    install = ["npm", "ci", "--prefer-offline", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=place, check=True)
    return ["node", str(place / "client.js")]


def go() -> list[str]:
    """Build the client in Go; return the command that runs it."""
    _require("go")
    program = str(BUILT / "go" / "client")
    build = ["go", "build", "-buildvcs=false", "-o", program, "."]
    subprocess.run(build, cwd=SOURCES / "go", check=True)
    return [program]


def _require(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on the PATH")


class Client:
    """A program that consumes, publishes and declares; what it complains of, pytest captures."""

    def __init__(self, command: list[str], broker_url: str, printed: Path) -> None:
        self._command = command
        self._url = broker_url
        self._printed = printed

    @contextmanager
    def consuming(self, exchange: str, keys: str) -> Iterator[None]:
        """Have it consume from a queue of its own, which it may not die of."""
        line = self._line("consume", exchange=exchange, keys=keys)
        with self._printed.open("w") as out, subprocess.Popen(line, stdout=out) as self._process:
            try:
                eventually(self._lines)  # the first says that it is ready
                yield
            finally:
                self._process.kill()

    def messages(self, count: int, *, about: str) -> list[Message]:
        """Return the messages that mention an id, as soon as it has printed so many."""

        def found() -> list[Message] | None:
            messages = [each for each in self._lines()[1:] if about in str(each["body"])]
            return messages if len(messages) >= count else None

        return eventually(found)

    def publish(self, exchange: str, key: str, body: object) -> None:
        """Have it publish a body, and nothing but a body."""
        line = self._line("publish", exchange=exchange, key=key, body=json.dumps(body))
        subprocess.run(line, check=True, timeout=30)

    def declare(self, queue: str) -> None:
        """Have it declare a durable queue, without arguments."""
        subprocess.run(self._line("declare", queue=queue), check=True, timeout=30)

    def _line(self, name: str, **options: str) -> list[str]:
        flags = [f"--{option}={value}" for option, value in options.items()]
        return [*self._command, name, f"--url={self._url}", *flags]

    def _lines(self) -> list[Message]:
        assert self._process.poll() is None, "the client died; its last words are on stderr"
        whole = self._printed.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in whole]
