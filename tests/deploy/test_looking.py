"""What only looks, and leaves a system that is down, or half down, as it is."""

import os
import shlex
import subprocess
import sys
from io import StringIO

import pytest

from deploy import __main__ as deploy
from deploy.addresses import ADDRESSES, addresses_of
from deploy.native.ports import Ports
from deploy.settings import GENERATED, ROOT
from tools.ledger.__main__ import main as ledger


class DownEngine:
    """A system that is down, and that nobody may bring up."""

    environment = {name: f"unreachable://127.0.0.1:1/{name}" for name in ADDRESSES}

    def is_up(self) -> bool:
        return False

    def runs(self) -> bool:
        return False

    def up(self) -> None:
        pytest.fail("it was brought up")

    def clean(self) -> None:
        pytest.fail("its data was thrown away")


@pytest.fixture
def down(monkeypatch):
    monkeypatch.setattr(deploy, "choose", lambda *_: DownEngine())
    monkeypatch.delenv("FORCE", raising=False)


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


@pytest.mark.usefixtures("down")
def test_the_ledger_starts_nothing(monkeypatch, arguments):
    ran = []
    monkeypatch.setattr(deploy, "write_env_file", lambda: pytest.fail("it wrote .env"))
    monkeypatch.setattr(os, "execvpe", lambda _, command, __: ran.append(command))

    assert deploy.main(arguments) == 0

    assert ran == [[".venv/bin/python", "-m", "tools.ledger"]]


def test_the_ledger_fails_and_says_which_server_does_not_answer(monkeypatch, capsys):
    for name in ADDRESSES:
        monkeypatch.setenv(name, "postgresql://nobody@127.0.0.1:1/nothing")

    assert ledger([]) == 2

    assert "PostgreSQL does not let us into the products database" in capsys.readouterr().err


@pytest.mark.usefixtures("down")
class TestASystemThatIsDown:
    @pytest.mark.parametrize("verb", ["ps", "env"])
    def test_has_no_addresses(self, verb, capsys):
        assert deploy.main([verb]) == 1

        said = capsys.readouterr()
        assert (said.out, said.err.strip()) == ("", "Nothing runs: `make up` brings the system up.")

    @pytest.mark.parametrize(
        ("terminal", "answer", "said"),
        [(False, "y", "make clean FORCE=1"), (True, "", "Nothing"), (True, "no", "Nothing")],
    )
    def test_keeps_its_data_until_somebody_says_yes(
        self, monkeypatch, capsys, terminal, answer, said
    ):
        monkeypatch.setattr("sys.stdin", StringIO(f"{answer}\n"))
        monkeypatch.setattr("sys.stdin.isatty", lambda: terminal)

        assert deploy.main(["clean"]) == 1

        assert said in capsys.readouterr().err

    @pytest.mark.parametrize(("force", "answer"), [("1", ""), ("", "y")])
    def test_loses_its_data_when_somebody_says_so(self, monkeypatch, force, answer):
        cleaned = []
        monkeypatch.setattr(DownEngine, "clean", lambda _: cleaned.append(True))
        monkeypatch.setenv("FORCE", force)
        monkeypatch.setattr("sys.stdin", StringIO(f"{answer}\n"))
        monkeypatch.setattr("sys.stdin.isatty", lambda: not force)

        assert deploy.main(["clean"]) == 0

        assert len(cleaned) == 1


class UpEngine(DownEngine):
    """A system that is up."""

    def __init__(self, **environment: str) -> None:
        addresses = addresses_of(Ports(), dict.fromkeys(GENERATED, "secret"))
        self.environment = {**addresses, **environment}

    def runs(self) -> bool:
        return True

    def up(self) -> None:
        pass


def test_who_has_read_enough_hears_of_no_broken_pipe():
    program = (
        "import deploy.__main__ as main; from tests.deploy.test_looking import UpEngine;"
        "main.choose = lambda *_: UpEngine(); raise SystemExit(main.main(['env']))"
    )
    nobody_reads, writes = os.pipe()
    os.close(nobody_reads)
    with os.fdopen(writes) as stdout:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE,
            check=False,
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.fixture
def said_by_up(monkeypatch, capsys):
    def say(**settings: str) -> str:
        monkeypatch.setattr(deploy, "choose", lambda *_: UpEngine(**settings))
        monkeypatch.setattr(deploy, "load", lambda: settings)
        monkeypatch.setattr(deploy, "write_env_file", lambda: "")
        monkeypatch.setattr(deploy, "write_addresses", lambda _: None)
        assert deploy.main(["up"]) == 0
        return capsys.readouterr().out

    return say


@pytest.mark.parametrize(
    ("settings", "is_said"),
    [
        ({}, False),
        ({"BIND_ADDRESS": "localhost"}, False),
        ({"BIND_ADDRESS": "0.0.0.0"}, True),
        ({"ORDER_PUBLIC_URL": "https://orders.example"}, True),
        ({"BIND_ADDRESS": "::", "REQUIRE_API_KEY": "True"}, False),
    ],
)
def test_up_says_that_everybody_may_use_an_api_without_keys(said_by_up, settings, is_said):
    assert ("REQUIRE_API_KEY" in said_by_up(**settings)) == is_said


@pytest.mark.parametrize(
    ("broker", "console"),
    [
        ({}, "http://127.0.0.1:15672   shop, password: BROKER_URL of `make env`"),
        ({"BROKER_URL": "amqp://me:other@elsewhere"}, ""),
    ],
)
def test_up_says_who_may_log_in_at_the_console_of_our_broker(said_by_up, broker, console):
    said = said_by_up(**broker)

    assert console in said
    assert ("RabbitMQ" in said, "secret" in said) == (bool(console), False)
