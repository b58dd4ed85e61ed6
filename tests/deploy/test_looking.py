"""What only looks, and leaves a system that is down, or half down, as it is."""

import os
import shlex
import subprocess

import pytest

from deploy import __main__ as deploy
from deploy.engine import ADDRESSES
from deploy.ledger.__main__ import main as ledger
from deploy.settings import ROOT


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
    made = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv/.complete", "ledger"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return shlex.split(made.stdout.strip().splitlines()[-1].partition("-m deploy ")[2])


def test_the_ledger_starts_nothing(monkeypatch, arguments):
    ran = []
    monkeypatch.setattr(deploy, "choose", lambda *_: DownEngine())
    monkeypatch.setattr(deploy, "write_env_file", lambda: pytest.fail("it wrote .env"))
    monkeypatch.setattr(os, "execvpe", lambda _, command, __: ran.append(command))

    assert deploy.main(arguments) == 0

    assert ran == [[".venv/bin/python", "-m", "deploy.ledger"]]


def test_the_ledger_fails_and_says_which_server_does_not_answer(monkeypatch, capsys):
    for name in ADDRESSES:
        monkeypatch.setenv(name, "postgresql://nobody@127.0.0.1:1/nothing")

    assert ledger([]) == 2

    assert "PostgreSQL does not let us into the products database" in capsys.readouterr().err
