"""A whole system natively: what `make up` and the tests both bring up and take down."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self
from urllib.parse import urlsplit

from deploy.addresses import OWNERS
from deploy.console import Progress
from deploy.failure import DeployFailure
from deploy.native.install import ensure_installed
from deploy.native.installation import TITLES, Installation
from deploy.native.ports import Ports, alone_with_ports, answers, require_free
from deploy.native.programs import Program
from deploy.native.supervision import ProcessState, end_survivors, orphans, send
from deploy.processes import ONE_SHOTS, SERVICES
from deploy.settings import ROOT

#: RabbitMQ makes its first start on a busy small machine; everything else is quicker.
READY_SECONDS = 120

#: A process that ends this often while it starts will not do better the next time.
_HOPELESS_AFTER_EXITS = 4


class Stack(Installation):
    """Brings an installation up and down, and tells how its processes are."""

    @classmethod
    @contextlib.contextmanager
    def temporary(cls, purpose: str, progress: Progress) -> Iterator[Self]:
        """Have a system that is up, on ports of its own, until it is not needed any more.

        :raises DeployFailure: if it cannot be brought up
        """
        stack = cls(ROOT / ".run" / f"{purpose}-{os.getpid()}", Ports.free(), progress=progress)
        try:
            stack.up()
            yield stack
        finally:
            stack.remove()

    # Up

    def up(self) -> None:
        """Bring up whatever is not up yet, and return when all of it is ready.

        What was started from other code or settings is stopped before the databases are
        migrated, and started again afterwards.

        :raises DeployFailure: if something cannot be brought up
        """
        with self._locked("lock"), alone_with_ports(self._progress):
            self._settle()
            self._require_service_ports()
            self._start_servers()
            self._prepare()
            self._start_services()

    def start_servers(self) -> None:
        """Bring up the private PostgreSQL, Redis and RabbitMQ, with roles and databases.

        :raises DeployFailure: if one of them does not get ready
        """
        with self._locked("lock"), alone_with_ports(self._progress):
            self._settle()
            self._start_servers()

    def is_up(self) -> bool:
        """Tell whether every process runs and does its work."""
        states = self._supervisor.states()
        if not states:
            # Before asking what should run: the servers may not even be installed yet.
            return False
        return all(
            name in states and states[name].state == "RUNNING" and program.is_ready()
            for name, program in self._programs().items()
        )

    def is_current(self) -> bool:
        """Tell whether what runs was started from the code and the settings of now."""
        return self._read_state().get("started_from") == self._fingerprints()

    # Down

    def stop(self) -> None:
        """Stop everything, also what an earlier supervisord left behind; return when it is gone."""
        if not self.run_dir.exists():
            return
        with self._locked("lock"):
            self._stop()

    def kill_all(self) -> None:
        """Kill every process of the stack at once, as a power cut would."""
        supervisor = self._supervisor.pid()
        if supervisor is not None:
            # First, or it would start again what we kill.
            send(supervisor, signal.SIGKILL)
        while left := self._survivors():
            for process in left:
                send(process.pid, signal.SIGKILL)
            time.sleep(0.02)
        self._supervisor.forget()

    def remove(self) -> None:
        """End everything at once and throw away its data and its logs."""
        if not self.run_dir.exists():
            return
        # Nobody will read the data again, so nobody has to put it in order.
        self.kill_all()
        shutil.rmtree(self._postgres_directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            # Only where it had to be put outside, and is empty now.
            self._postgres_directory.parent.rmdir()
        for process in SERVICES:
            shutil.rmtree(self._metrics_directory(process.name), ignore_errors=True)
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def status(self) -> list[ProcessState]:
        """Return the state of every process, servers first; ORPHANED if it is not supervised."""
        states = self._supervisor.states() or {
            name: ProcessState(name, "ORPHANED", pid)
            for name, pid in orphans(self._survivors()).items()
        }
        return [
            replace(states.get(name, ProcessState(name)), address=program.address)
            for name, program in self._programs().items()
        ]

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of all processes that run, by name."""
        return {each.name: each.pid for each in self.status() if each.pid is not None}

    # How it is done

    def _settle(self) -> None:
        """Make a fresh start of a stack that is down; of one that is up, stop what is outdated."""
        if self._supervisor.is_running():
            # Perhaps somebody else brought it up while we waited for our turn.
            self._adopt_ports()
            before, now = self._read_state().get("started_from"), self._fingerprints()
            if not isinstance(before, dict) or before.get("servers") != now["servers"]:
                self._stop()
            elif before != now:
                self._stop_services()
        if not self._supervisor.is_running():
            self._clear_leftovers()
            self._choose_ports()
        # Nothing runs now that was started from anything else, whatever fails from here on.
        with self._locked("state.lock"):
            self._write_state(started_from=self._fingerprints())

    def _start_servers(self) -> None:
        ensure_installed(self.private_servers, self._progress)
        self._require_named_servers()
        states = self._supervisor.states()
        preparations = {
            "postgres": self._postgres.prepare,
            "redis": self._redis.prepare,
            "rabbitmq": self._rabbitmq.prepare,
        }
        for server in self.private_servers:
            if server not in states or states[server].state != "RUNNING":
                preparations[server]()
        self._configure()
        programs = self._server_programs()
        self._launch(programs)
        for program in programs:
            with self._progress.step(f"{TITLES[program.name]} on {program.address}"):
                self._await(program)
        if "postgres" in self.private_servers:
            self._postgres.create_databases(self._secrets)

    def _prepare(self) -> None:
        running = {}
        with self._progress.step("Migrations, admin account, policies of the broker"):
            for process in ONE_SHOTS:
                if process.name == "broker-prepare" and "rabbitmq" not in self.private_servers:
                    # What others have set up is left as it is (docs/operating.md).
                    continue
                program = self._program_of(process)
                log = self.log_path(process.name)
                log.parent.mkdir(exist_ok=True)
                with log.open("ab") as output:
                    running[process.name] = subprocess.Popen(
                        program.command,
                        cwd=program.directory,
                        env=self._supervisor.environment_of(program),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
            codes = {name: one_shot.wait() for name, one_shot in running.items()}
            for name, code in codes.items():
                if code != 0:
                    raise self._not_ready(name, f"failed with exit code {code}")

    def _start_services(self) -> None:
        self._configure()
        programs = self._service_programs()
        self._launch(programs)
        for program in programs:
            with self._progress.step(f"{program.name} on {program.address}"):
                self._await(program)

    def _stop(self) -> None:
        if self._supervisor.is_running():
            self._stop_services()
            with self._progress.step("Stop servers"):
                names = {program.name for program in self._server_programs()}
                # epmd last: RabbitMQ takes its name off its list when it leaves. And
                # all of them before supervisord, which takes a second for each.
                self._supervisor.stop(*names - {"epmd"})
                self._supervisor.stop(*names & {"epmd"})
                self._supervisor.shut_down()
        self._clear_leftovers()
        self._supervisor.forget()

    def _stop_services(self) -> None:
        # Also those that an earlier version had under other names.
        servers = {program.name for program in self._server_programs()}
        with self._progress.step("Stop services and workers"):
            self._supervisor.stop(*self._supervisor.states().keys() - servers)

    def _configure(self) -> None:
        """Tell supervisord what to run; start it if need be, and nothing else."""
        self._supervisor.write_configuration(self._programs().values())
        if self._supervisor.is_running():
            self._supervisor.apply_configuration()
        else:
            self._supervisor.launch()

    def _launch(self, programs: Sequence[Program]) -> None:
        states = self._supervisor.states()
        for program in programs:
            state = states.get(program.name)
            if state is None or state.state not in {"RUNNING", "STARTING", "BACKOFF"}:
                for file in program.stale_files:
                    file.unlink(missing_ok=True)
                self._supervisor.start(program.name)

    def _await(self, program: Program) -> None:
        """Wait for one process to get ready, giving up on one that keeps ending.

        :raises DeployFailure: if it does not, with the end of its log
        """
        deadline = time.monotonic() + READY_SECONDS
        pids: set[int] = set()
        while not program.is_ready():
            state = self._supervisor.states().get(program.name)
            if state is not None and state.pid is not None:
                pids.add(state.pid)
            if state is None or state.state == "FATAL" or len(pids) >= _HOPELESS_AFTER_EXITS:
                raise self._not_ready(program.name, "ends as soon as it is started")
            if time.monotonic() > deadline:
                raise self._not_ready(program.name, f"was not ready after {READY_SECONDS} s")
            time.sleep(0.05)

    def _not_ready(self, name: str, what: str) -> DeployFailure:
        log = self.log_path(name)
        try:
            lines = log.read_text(errors="replace").splitlines()[-15:]
        except OSError:
            lines = []
        tail = "".join(f"\n    {line}" for line in lines)
        return DeployFailure(f"{name} {what}; the end of {log}:{tail}")

    def _require_service_ports(self) -> None:
        """Refuse early if somebody else listens where our services are to be.

        :raises DeployFailure: if so
        """
        states = self._supervisor.states()
        services = {"product-service": "PRODUCT_PORT", "order-service": "ORDER_PORT"}
        addresses = {
            variable: self.environment["BIND_ADDRESS"]
            for name, variable in services.items()
            if states.get(name, ProcessState(name)).pid is None
        }
        require_free(addresses, self.ports)

    def _require_named_servers(self) -> None:
        """Check that the servers which the settings name are there.

        :raises DeployFailure: if one of them does not answer
        """
        default_ports = {"postgresql": 5432, "postgres": 5432, "redis": 6379, "amqp": 5672}
        names = [f"{owner.upper()}_DATABASE_URL" for owner in OWNERS]
        for name in (*names, "CACHE_URL", "BROKER_URL"):
            if name not in self.settings:
                continue
            url = urlsplit(self.settings[name])
            port = url.port or default_ports.get(url.scheme)
            # A list of brokers or a scheme of its own is for the client library to judge.
            if url.hostname is None or port is None or ";" in self.settings[name]:
                continue
            if not answers(url.hostname, port, timeout_seconds=3):
                raise DeployFailure(
                    f"{name} in .env names {url.hostname}:{port}, where nothing answers."
                )

    def _clear_leftovers(self) -> None:
        if self._survivors():
            with self._progress.step("Clear away what an earlier run left behind"):
                end_survivors(self._survivors)
