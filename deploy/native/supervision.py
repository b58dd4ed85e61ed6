"""supervisord: its configuration, its XML-RPC over a unix socket, and what it leaves behind."""

import contextlib
import hashlib
import http.client
import os
import resource
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from deploy.failure import DeployFailure
from deploy.native.programs import Program
from deploy.settings import ROOT

#: In the environment of every process of a stack, and what finds those that were left behind.
MARKER = "STACK_RUN_DIR"

#: How long a process may take to end before it is killed.
STOP_SECONDS = 20

# sun_path has 108 bytes, and supervisord binds to a longer name first.
_LONGEST_SOCKET_PATH = 90

# Programs that write a title over their environment. Only of these does the working
# directory count: an operator's shell may well stand in it.
_TITLED = {"postgres": "postgres", "redis-server": "redis", "valkey-server": "redis"}


@dataclass(frozen=True)
class ProcessState:
    """What is known about one process: a line of `make ps`."""

    name: str
    #: RUNNING, STARTING, BACKOFF, STOPPING, STOPPED, EXITED, FATAL or UNKNOWN; or ORPHANED, which
    #: runs without a supervisord.
    state: str = "STOPPED"
    pid: int | None = None
    uptime_seconds: int = 0
    address: str = ""


class Supervisor:
    """The supervisord of one directory, running or not."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.configuration = run_dir / "supervisord.conf"
        self.logs = run_dir / "logs"

    def is_running(self) -> bool:
        """Tell whether it answers."""
        return self.pid() is not None

    def launch(self) -> None:
        """Start it in the background, with the configuration that was written.

        :raises DeployFailure: if it does not answer within some seconds
        """
        started = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.configuration)],
            cwd=ROOT,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if started.returncode != 0:
            raise DeployFailure(f"supervisord does not start: {started.stderr.strip()}")
        if not wait_until(self.is_running, timeout_seconds=10):
            raise DeployFailure(f"supervisord does not answer; see {self._log}.")

    def write_configuration(self, programs: Iterable[Program]) -> None:
        """Write down what to run. Nothing starts by itself: the order is ours."""
        self.logs.mkdir(exist_ok=True)
        text = "\n".join([self._general_section(), *map(self._program_section, programs)])
        self.configuration.touch(mode=0o600)
        self.configuration.write_text(text)

    def apply_configuration(self) -> None:
        """Take over what was written since; whatever changed is stopped, not started again."""
        [[added, changed, removed]] = cast("list[list[list[str]]]", self._call("reloadConfig"))
        self.stop(*changed, *removed)
        for name in (*changed, *removed):
            self._call("removeProcessGroup", name)
        for name in (*added, *changed):
            self._call("addProcessGroup", name)

    def states(self) -> dict[str, ProcessState]:
        """Return every process by name; nothing when supervisord is not there."""
        try:
            infos = cast("list[dict[str, Any]]", self._call("getAllProcessInfo"))
        except OSError:
            return {}
        return {info["name"]: _state_of(info) for info in infos}

    def start(self, name: str) -> None:
        """Start a process unless it is started; do not wait for it."""
        # A process that is on its way down cannot be started before it is there.
        wait_until(lambda: self._state_name(name) != "STOPPING", timeout_seconds=STOP_SECONDS + 5)
        self._call_tolerating(Faults.ALREADY_STARTED, "startProcess", name, False)

    def stop(self, *names: str) -> None:
        """Stop processes side by side, and return when they are gone."""
        for name in self.states().keys() & set(names):
            self._call_tolerating(Faults.NOT_RUNNING, "stopProcess", name, False)
        wait_until(
            lambda: not any(self._state_name(name) == "STOPPING" for name in names),
            timeout_seconds=STOP_SECONDS + 5,
        )

    def shut_down(self) -> None:
        """End supervisord, and with it everything that it runs."""
        pid = cast("int", self._call("getPID"))
        self._call("shutdown")
        wait_until(lambda: not psutil.pid_exists(pid), timeout_seconds=2 * STOP_SECONDS)

    def pid(self) -> int | None:
        """Return the process id of supervisord itself."""
        try:
            return cast("int", self._call("getPID"))
        except OSError:
            return None

    def log_of(self, name: str) -> Path:
        """Return the file that has what a process printed."""
        return self.logs / f"{name}.log"

    def forget(self) -> None:
        """Remove the socket and what else speaks of a supervisord that is gone."""
        self._socket.unlink(missing_ok=True)
        (self._run_dir / "supervisord.pid").unlink(missing_ok=True)
        if self._socket.parent != self._run_dir:
            with contextlib.suppress(OSError):
                self._socket.parent.rmdir()

    def _state_name(self, name: str) -> str:
        state = self.states().get(name)
        return state.state if state else "UNKNOWN"

    def _call(self, method: str, *arguments: object) -> object:
        # One connection per call: several threads of a test may ask at once.
        transport = SupervisorTransport(serverurl=f"unix://{self._socket}")
        with xmlrpc.client.ServerProxy("http://localhost", transport) as proxy:
            try:
                return getattr(proxy.supervisor, method)(*arguments)
            except http.client.HTTPException as error:
                raise ConnectionError(f"supervisord went away during {method}") from error

    def _call_tolerating(self, fault_code: int, method: str, *arguments: object) -> None:
        try:
            self._call(method, *arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != fault_code:
                raise DeployFailure(f"supervisord, {method}: {fault.faultString}") from fault

    @property
    def _log(self) -> Path:
        return self.logs / "supervisord.log"

    @property
    def _socket(self) -> Path:
        beside = self._run_dir / "supervisord.sock"
        if len(str(beside)) <= _LONGEST_SOCKET_PATH:
            return beside
        digest = hashlib.sha256(str(self._run_dir).encode()).hexdigest()[:12]
        directory = Path(tempfile.gettempdir()) / f"shop-{os.geteuid()}-{digest}"
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
        # Anybody can make a directory there before us, and would then command our processes.
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise DeployFailure(f"{directory} belongs to somebody else; remove it.")
        directory.chmod(0o700)
        return directory / "supervisord.sock"

    def _environment(self) -> dict[str, str]:
        """Return all that the processes inherit: of the caller's environment, next to nothing."""
        home = os.path.expanduser("~")
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:"
            "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": home,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            MARKER: str(self._run_dir),
        }

    def environment_of(self, program: Program) -> dict[str, str]:
        """Return the whole environment in which a program runs."""
        return {**self._environment(), **program.environment}

    def _general_section(self) -> str:
        _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = 65536 if hard_limit == resource.RLIM_INFINITY else min(65536, hard_limit)
        # Says that root is meant; supervisord warns otherwise.
        user = "user = root" if os.geteuid() == 0 else ""
        return f"""
[supervisord]
logfile = {_escaped(str(self._log))}
logfile_maxbytes = 10MB
logfile_backups = 1
pidfile = {_escaped(str(self._run_dir / "supervisord.pid"))}
directory = {_escaped(str(ROOT))}
minfds = {files}
{user}

[unix_http_server]
file = {_escaped(str(self._socket))}
chmod = 0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl = unix://{_escaped(str(self._socket))}
"""

    def _program_section(self, program: Program) -> str:
        environment = ",".join(
            f'{name}="{_escaped(_quoted(value))}"' for name, value in program.environment.items()
        )
        # Killed a hundred times in a row, a process is still started again. The name of the log is
        # expanded twice, unlike everything else.
        return f"""
[program:{program.name}]
command = {_escaped(shlex.join(program.command))}
directory = {_escaped(str(program.directory))}
environment = {environment}
autostart = false
autorestart = true
startsecs = 1
startretries = 1000000
stopsignal = {program.stop_signal}
stopwaitsecs = {STOP_SECONDS}
stopasgroup = {"true" if program.stop_as_group else "false"}
killasgroup = true
redirect_stderr = true
stdout_logfile = {_escaped(_escaped(str(self.log_of(program.name))))}
stdout_logfile_maxbytes = 20MB
stdout_logfile_backups = 1
{f"user = {program.user}" if program.user else ""}
"""


def survivors(run_dir: Path, *working_directories: Path) -> list[psutil.Process]:
    """Find the processes that belong to a stack, whoever started them last.

    By the variable that all of them inherit, or else by the directory that they work in.
    """
    directories = {str(directory) for directory in working_directories}
    found = []
    for process in psutil.process_iter():
        # Gone meanwhile, or somebody else's.
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and (
                process.environ().get(MARKER) == str(run_dir)
                or (process.name() in _TITLED and process.cwd() in directories)
            ):
                found.append(process)
    return found


def orphans(processes: Sequence[psutil.Process]) -> dict[str, int]:
    """Return which programs these processes are, with the one that supervisord had started."""
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            name = process.environ().get("SUPERVISOR_PROCESS_NAME") or _TITLED.get(process.name())
            if name and process.parent() not in processes:
                found[name] = process.pid
    return found


def end_survivors(find: Callable[[], Sequence[psutil.Process]]) -> None:
    """End processes that nobody supervises any more."""
    # INT is what PostgreSQL calls a fast shutdown; the others take either, except
    # that RabbitMQ ignores INT.
    for number, seconds in ((signal.SIGINT, 3), (signal.SIGTERM, 15), (signal.SIGKILL, 10)):
        for process in find():
            send(process.pid, number)
        if wait_until(lambda: not find(), timeout_seconds=seconds):
            return


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have gone meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_until(
    condition: Callable[[], bool], *, timeout_seconds: float, pause_seconds: float = 0.05
) -> bool:
    """Wait until something holds; return whether it did in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_seconds)
    return True


def _state_of(info: dict[str, Any]) -> ProcessState:
    is_running = info["statename"] in {"RUNNING", "STARTING"}
    return ProcessState(
        name=info["name"],
        state=info["statename"],
        pid=info["pid"] or None,
        uptime_seconds=max(0, info["now"] - info["start"]) if is_running else 0,
    )


def _escaped(value: str) -> str:
    """Escape what supervisord would expand."""
    return value.replace("%", "%%")


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
