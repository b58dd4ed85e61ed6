"""`make up`, `make ps` and `make down` on a system that runs: of old code, or unsupervised."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from shop import eventually

from deploy.console import Progress
from deploy.native import engine, installation
from deploy.native.engine import NativeEngine
from deploy.native.stack import Stack
from deploy.native.supervision import MARKER, Supervisor
from tools.chaos.harness import Harness

SERVICES = {"product-service", "order-service", "products-worker", "orders-worker"}


@pytest.fixture(autouse=True)
def make_is_of_this_stack(stack: Harness) -> Iterator[None]:
    """Have `make up` mean the system of the tests, and leave that as other tests know it."""
    stack.wait_ready()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "RUN_DIR", stack.run_dir)
        yield
    # After a test's own patches are undone, because they are made later than this one.
    stack.up()


@pytest.fixture
def running_during_migrations(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Which processes run when databases are migrated, for each time that they are."""
    seen: list[set[str]] = []
    prepare = Stack._prepare

    def look_and_prepare(stack: Stack) -> None:
        seen.append(set(stack.pids))
        prepare(stack)

    monkeypatch.setattr(Stack, "_prepare", look_and_prepare)
    return seen


def make_up(**settings: str) -> None:
    NativeEngine(settings, Progress()).up()


def variable_of(pid: int, name: str) -> str:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    [value] = [each for each in variables if each.startswith(f"{name}=".encode())]
    return value.partition(b"=")[2].decode()


def kill_supervisor(stack: Harness) -> None:
    pid = Supervisor(stack.run_dir).pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Supervisor(stack.run_dir).is_running())


def assert_gone(pids: dict[str, int]) -> None:
    # Whoever adopted them may take a moment to hear that they ended.
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()))


class TestUp:
    def test_does_nothing_when_nothing_has_changed(
        self, stack: Harness, running_during_migrations: list[set[str]]
    ) -> None:
        before = stack.pids

        make_up()

        assert stack.pids == before
        assert running_during_migrations == []

    def test_stops_migrates_and_starts_when_the_code_has_changed(
        self,
        stack: Harness,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        running_during_migrations: list[set[str]],
    ) -> None:
        before = stack.pids
        (tmp_path / "new.py").write_text("pass\n")
        sources = (*installation.SERVICE_SOURCES, tmp_path)
        monkeypatch.setattr(installation, "SERVICE_SOURCES", sources)

        make_up()

        after = stack.pids
        assert running_during_migrations == [before.keys() - SERVICES]
        assert {name for name in before if before[name] != after[name]} == SERVICES

    def test_starts_services_again_with_changed_settings(self, stack: Harness) -> None:
        before = stack.pids

        make_up(LOG_LEVEL="WARNING")

        after = stack.pids
        assert {name for name in before if before[name] != after[name]} == SERVICES
        assert {variable_of(after[name], "LOG_LEVEL") for name in SERVICES} == {"WARNING"}


class TestWithoutSupervisor:
    def test_ps_shows_what_runs_nevertheless(
        self, stack: Harness, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = stack.pids

        kill_supervisor(stack)

        NativeEngine({}, Progress()).ps()
        lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
        assert {name: int(pid) for name, _, pid, *_ in lines} == before
        assert {state for _, state, *_ in lines} == {"orphaned"}

    def test_up_replaces_what_runs_and_leaves_that_of_others_alone(self, stack: Harness) -> None:
        before = stack.pids
        foreign = {**os.environ, MARKER: f"{stack.run_dir}-of-others"}
        with subprocess.Popen(["sleep", "600"], env=foreign) as bystander:
            try:
                kill_supervisor(stack)

                make_up()

                assert bystander.poll() is None
            finally:
                bystander.kill()
        assert stack.pids.keys() == before.keys()
        assert_gone(before)

    def test_down_ends_what_runs(self, stack: Harness) -> None:
        before = stack.pids
        kill_supervisor(stack)

        NativeEngine({}, Progress()).down()

        assert_gone(before)
        assert {each.state for each in stack.status()} == {"STOPPED"}
