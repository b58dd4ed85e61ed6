"""A system whose processes can be killed, frozen, restarted and given other settings by name."""

import signal
import time
from dataclasses import replace
from typing import Any

import psutil

from deploy.failure import DeployFailure
from deploy.native.programs import Program
from deploy.native.stack import READY_SECONDS, Stack
from deploy.native.supervision import send, wait_until
from deploy.processes import Process


class Harness(Stack):
    """What fault trials and the tests of the whole system do to a system, one process at a time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: Variables that one process is given beyond, or instead of, what all are.
        self._overrides: dict[str, dict[str, str]] = {}
        super().__init__(*args, **kwargs)

    @property
    def superuser_database_url(self) -> str:
        """The address of the private PostgreSQL for whoever may do everything there."""
        account = f"postgres:{self._secrets['POSTGRES_PASSWORD']}"
        return f"postgresql://{account}@127.0.0.1:{self.ports.postgres}/postgres"

    def wait_ready(self, *names: str, timeout_seconds: float = READY_SECONDS) -> None:
        """Wait until the processes named, or all, do their work, however often they restart.

        :raises DeployFailure: if that takes too long
        """
        programs = self._programs()
        deadline = time.monotonic() + timeout_seconds
        for name in names or tuple(programs):
            left = max(0.0, deadline - time.monotonic())
            ready = programs[name].is_ready
            if not wait_until(ready, timeout_seconds=left, pause_seconds=0.1):
                raise self._not_ready(name, f"was not ready after {timeout_seconds:.0f} s")

    def pid(self, name: str) -> int:
        """Return the process id of a process.

        :raises DeployFailure: if it does not run at the moment
        """
        state = self._supervisor.states().get(name)
        if state is None or state.pid is None:
            raise DeployFailure(f"{name} is not running.")
        return state.pid

    def children(self, name: str) -> list[int]:
        """Return the process ids of a process's children, such as gunicorn's workers."""
        return [child.pid for child in psutil.Process(self.pid(name)).children()]

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process; if it ends, supervisord starts it again."""
        send(self.pid(name), number)

    def stop_process(self, name: str) -> None:
        """Stop a process for good, and return when it is gone."""
        self._supervisor.stop(name)

    def start_process(self, name: str, *, wait: bool = True) -> None:
        """Start a process, and by default wait until it is ready.

        :raises DeployFailure: if it does not get ready
        """
        program = self._programs()[name]
        self._launch([program])
        if wait:
            self._await(program)

    def restart(self, name: str) -> None:
        """Stop a process and start it again."""
        self.stop_process(name)
        self.start_process(name)

    def set_environment(self, name: str, **variables: str | None) -> None:
        """Restart a process with variables changed for it alone; `None` takes a change back.

        With `FAILPOINTS=…` it fails where a test wants it to; with a `BROKER_URL` it
        reaches its broker through a test's proxy. It is not waited for.
        """
        overrides = self._overrides.setdefault(name, {})
        for variable, value in variables.items():
            if value is None:
                overrides.pop(variable, None)
            else:
                overrides[variable] = value
        with self._locked("lock"):
            self._configure()
        self.start_process(name, wait=False)

    def rabbitmqctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` against the private broker and return what it prints.

        :raises DeployFailure: if it fails
        """
        return self._rabbitmq.control(*arguments)

    def _program_of(self, process: Process) -> Program:
        program = super()._program_of(process)
        changed = {**program.environment, **self._overrides.get(process.name, {})}
        return replace(program, environment=changed)
