"""What only looks, and leaves a system that is down, or half down, as it is."""

import os
import shlex
import subprocess

import pytest

from deploy import __main__ as deploy
from deploy.addresses import ADDRESSES
from deploy.settings import ROOT
from tools.ledger.__main__ import main as ledger


class DownEngine:
    """A system that is down, and that nobody may bring up."""

    environment = {name: f"unreachable://127.0.0.1:1/{name}" for name in ADDRESSES}

    def is_up(self) -> bool:
        return False

    def up(self) -> None:
        pytest.fail("it was brought up")


@pytest.fixture
def arguments() -> list[str]:
    """What `make ledger` gives to `python -m deploy`."""
    # The tests may be run by make themselves, whose flags and variables are not meant for this one.
    made = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv/.complete", "ledger"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
    )  # fmt: skip
    [line] = [line for line in made.stdout.splitlines() if "-m deploy " in line]
    return shlex.split(line.partition("-m deploy ")[2])


def test_the_ledger_starts_nothing(monkeypatch, arguments):
    ran = []
    monkeypatch.setattr(deploy, "choose", lambda *_: DownEngine())
    monkeypatch.setattr(deploy, "write_env_file", lambda: pytest.fail("it wrote .env"))
    monkeypatch.setattr(os, "execvpe", lambda _, command, __: ran.append(command))

    assert deploy.main(arguments) == 0

    assert ran == [[".venv/bin/python", "-m", "tools.ledger"]]


def test_the_ledger_fails_and_says_which_server_does_not_answer(monkeypatch, capsys):
    for name in ADDRESSES:
        monkeypatch.setenv(name, "postgresql://nobody@127.0.0.1:1/nothing")

    assert ledger([]) == 2

    assert "PostgreSQL does not let us into the products database" in capsys.readouterr().err
