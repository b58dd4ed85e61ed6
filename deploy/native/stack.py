"""The whole system natively: the one class that `make up` and the tests both use."""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from deploy.addresses import OWNERS, addresses_of
from deploy.console import Progress
from deploy.failure import DeployFailure
from deploy.native import account
from deploy.native.fingerprint import SERVER_SOURCES, SERVICE_SOURCES, fingerprint
from deploy.native.install import ensure_installed
from deploy.native.ports import Ports, alone_with_ports, answers, require_free
from deploy.native.postgres import Postgres
from deploy.native.programs import DEFAULTS, Program, native_command, native_environment
from deploy.native.rabbitmq import RabbitMQ
from deploy.native.redis import Redis
from deploy.native.supervision import (
    ProcessState,
    Supervisor,
    end_survivors,
    orphans,
    send,
    survivors,
    wait_until,
)
from deploy.processes import ONE_SHOTS, SERVICES, Process
from deploy.settings import GENERATED, ROOT

#: A worker touches its file every few seconds; older than this, it does not work.
ALIVE_SECONDS = 30

#: RabbitMQ makes its first start on a busy small machine; everything else is quicker.
READY_SECONDS = 120

#: A process that ends this often while it starts will not do better the next time.
_HOPELESS_AFTER_EXITS = 4


class Stack:
    """PostgreSQL, Redis, RabbitMQ and the four processes of the system, below one directory.

    Everything that is chosen by itself (ports, passwords, where the data lies) is
    remembered in that directory, so a second `Stack` of the same directory, in this
    process or in another one, means the same stack. Several stacks live side by
    side as long as their ports differ (`Ports.free()`).

    `settings` are the variables of `.env.example`. Where they name a server
    (`BROKER_URL`, …), that server is used and none of our own is started.
    """

    def __init__(
        self,
        run_dir: Path,
        ports: Ports | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.run_dir = run_dir.resolve()
        self.settings = dict(settings or {})
        self._progress = progress or Progress()
        self._supervisor = Supervisor(self.run_dir)
        self._account = account.for_postgres()
        #: Variables that one process is given beyond, or instead of, what all are.
        self._overrides: dict[str, dict[str, str]] = {}
        self._remember(ports)

    @classmethod
    @contextlib.contextmanager
    def temporary(cls, purpose: str, progress: Progress) -> Iterator["Stack"]:
        """Have a system that is up, on ports of its own, until it is not needed any more.

        :raises DeployFailure: if it cannot be brought up
        """
        stack = cls(ROOT / ".run" / f"{purpose}-{os.getpid()}", Ports.free(), progress=progress)
        try:
            stack.up()
            yield stack
        finally:
            stack.remove()

    # What is where

    @property
    def environment(self) -> dict[str, str]:
        """The addresses and settings of this stack, by the names of `.env.example`."""
        own = {**addresses_of(self.ports, self._secrets), "SECRET_KEY": self._secrets["SECRET_KEY"]}
        own |= {"PRODUCT_PORT": str(self.ports.product), "ORDER_PORT": str(self.ports.order)}
        for owner in map(str.upper, OWNERS):
            # Where there is one URL only, of a server of somebody else, it serves for everything.
            if named := self.settings.get(f"{owner}_DATABASE_URL"):
                own[f"{owner}_RUNTIME_DATABASE_URL"] = named
            if named := self.settings.get("BROKER_URL"):
                own[f"{owner}_BROKER_URL"] = named
        return {**DEFAULTS, **own, **self.settings}

    @property
    def superuser_database_url(self) -> str:
        """The address of the private PostgreSQL for whoever may do everything there."""
        account = f"postgres:{self._secrets['POSTGRES_PASSWORD']}"
        return f"postgresql://{account}@127.0.0.1:{self.ports.postgres}/postgres"

    @property
    def private_servers(self) -> tuple[str, ...]:
        """Which of `postgres`, `redis` and `rabbitmq` are ours, being named nowhere else."""
        named = self.settings
        databases = [f"{owner.upper()}_DATABASE_URL" for owner in OWNERS]
        ours = {
            "postgres": not all(name in named for name in databases),
            "redis": "CACHE_URL" not in named,
            "rabbitmq": "BROKER_URL" not in named,
        }
        return tuple(name for name, is_ours in ours.items() if is_ours)

    def metrics_port(self, name: str) -> int:
        """Return the port on which a service or a worker answers `/metrics`."""
        return {
            "product-service": self.ports.product,
            "order-service": self.ports.order,
            "products-worker": self.ports.products_worker_metrics,
            "orders-worker": self.ports.orders_worker_metrics,
        }.get(name, 0)

    def log_path(self, name: str) -> Path:
        """Return the file with everything that a process printed."""
        return self._supervisor.log_of(name)

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

    def runs(self) -> bool:
        """Tell whether anything of it runs, supervised or not."""
        return self._supervisor.is_running() or bool(self._survivors())

    def is_current(self) -> bool:
        """Tell whether what runs was started from the code and the settings of now."""
        return self._read_state().get("started_from") == self._fingerprints()

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

    # One process at a time

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
            with self._progress.step(f"{_TITLES[program.name]} on {program.address}"):
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

    def _fingerprints(self) -> dict[str, str]:
        """Return what servers and services are started from, at this moment."""
        ports = [self.settings.get(f"{name.upper()}_PORT") for name in self.ports.to_json()]
        programs = map(self._program_of, (*ONE_SHOTS, *SERVICES))
        return {
            "servers": fingerprint(SERVER_SOURCES, self.private_servers, ports),
            "services": fingerprint(
                SERVICE_SOURCES, [(each.name, each.command, each.environment) for each in programs]
            ),
        }

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

    # Ports, secrets and places

    def _remember(self, ports: Ports | None) -> None:
        """Read what this directory's stack chose before; choose, and write down, what is new."""
        with self._locked("state.lock"):
            known = self._read_state()
            remembered = known.get("ports")
            before = Ports.from_json(remembered) if isinstance(remembered, dict) else Ports()
            passwords = known.get("secrets")
            found = passwords if isinstance(passwords, dict) else {}
            missing = [name for name in GENERATED if not found.get(_key(name))]
            self._secrets = {
                name: found.get(_key(name)) or secrets.token_urlsafe(24) for name in GENERATED
            }
            place = known.get("postgres")
            self._postgres_directory = (
                Path(place) if isinstance(place, str) else self._place_for_postgres()
            )
            self._preferred_ports = ports or Ports.of(self.settings, otherwise=before)
            # What runs, runs where it was started, whatever `.env` says by now.
            self.ports = before
            if not self.runs():
                self.ports = self._preferred_ports
            if missing or place is None:
                self._write_state()

    def _read_state(self) -> dict[str, object]:
        try:
            state = json.loads(self._state_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return state if isinstance(state, dict) else {}

    def _write_state(self, **changes: object) -> None:
        state = {
            **self._read_state(),
            "ports": self.ports.to_json(),
            "secrets": {_key(name): secret for name, secret in self._secrets.items()},
            "postgres": str(self._postgres_directory),
            **changes,
        }
        # Replaced as a whole: `make env` may read it at this moment.
        fresh = self._state_file.with_suffix(f".{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(state, indent=2) + "\n")
        fresh.replace(self._state_file)

    @property
    def _state_file(self) -> Path:
        return self.run_dir / "state.json"

    def _place_for_postgres(self) -> Path:
        """Choose where PostgreSQL's data lies: here, unless its account may not come here."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        # Everything secret in here has a mode of its own; PostgreSQL's account only passes.
        self.run_dir.chmod(0o700 if self._account.is_ours else 0o711)
        if self._account.can_enter(self.run_dir):
            return self.run_dir / "postgres"
        place = Path("/var/tmp") / f"shop-{self._digest}" / "postgres"  # noqa: S108 - a name of our own below it
        self._progress.note(
            f"PostgreSQL's data goes to {place}: the user {self._account.name}, which it runs as, "
            f"may not enter {self.run_dir}."
        )
        return place

    def _metrics_directory(self, name: str) -> Path:
        """Return where web processes count together: in memory, because writing must never wait."""
        memory = Path("/dev/shm")  # noqa: S108 - a name of our own below it
        if memory.is_dir():
            return memory / f"shop-{self._digest}-{name}"
        return self.run_dir / "metrics" / name

    @property
    def _digest(self) -> str:
        """A name for this stack outside of its directory."""
        return hashlib.sha256(str(self.run_dir).encode()).hexdigest()[:12]

    def _adopt_ports(self) -> None:
        """Take over the ports that the running stack was started with."""
        with self._locked("state.lock"):
            ports = self._read_state().get("ports")
        if isinstance(ports, dict):
            self.ports = Ports.from_json(ports)

    def _choose_ports(self) -> None:
        """Settle on ports, moving a server of ours out of the way of somebody else's."""
        ports = self._preferred_ports
        services = {ports.product, ports.order}
        moved: set[int] = set(services)
        for name in ports.to_json():
            if name in {"product", "order"}:
                continue
            wanted = getattr(ports, name)
            ports = ports.moved_to_free(name, taken=moved)
            chosen = getattr(ports, name)
            moved.add(chosen)
            if chosen != wanted and name in {*self.private_servers, *_ALWAYS_OURS}:
                self._progress.note(f"Port {wanted} is in use, so {_TITLES[name]} gets {chosen}.")
        self.ports = ports
        with self._locked("state.lock"):
            self._write_state()

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        # "lock" keeps a second `make up` or `make down` of the same directory waiting; "state.lock"
        # whoever reads what is being chosen, and never for long.
        self.run_dir.mkdir(parents=True, exist_ok=True)
        with (self.run_dir / name).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _survivors(self) -> list[psutil.Process]:
        return survivors(self.run_dir, self._postgres.data, self._redis.directory)

    def _clear_leftovers(self) -> None:
        if self._survivors():
            with self._progress.step("Clear away what an earlier run left behind"):
                end_survivors(self._survivors)

    # The processes

    @property
    def _postgres(self) -> Postgres:
        return Postgres(
            directory=self._postgres_directory,
            port=self.ports.postgres,
            account=self._account,
            superuser_password=self._secrets["POSTGRES_PASSWORD"],
        )

    @property
    def _redis(self) -> Redis:
        return Redis(directory=self.run_dir / "redis", port=self.ports.redis)

    @property
    def _rabbitmq(self) -> RabbitMQ:
        return RabbitMQ(
            directory=self.run_dir / "rabbitmq",
            port=self.ports.rabbitmq,
            management_port=self.ports.rabbitmq_management,
            metrics_port=self.ports.rabbitmq_metrics,
            distribution_port=self.ports.rabbitmq_distribution,
            epmd_port=self.ports.epmd,
            password=self._secrets["BROKER_PASSWORD"],
        )

    def _programs(self) -> dict[str, Program]:
        programs = [*self._server_programs(), *self._service_programs()]
        return {program.name: program for program in programs}

    def _server_programs(self) -> list[Program]:
        servers = {
            "postgres": lambda: [self._postgres.program()],
            "redis": lambda: [self._redis.program()],
            "rabbitmq": lambda: [*self._rabbitmq.programs()],
        }
        return [program for name in self.private_servers for program in servers[name]()]

    def _service_programs(self) -> list[Program]:
        return [self._program_of(process) for process in SERVICES]

    def _program_of(self, process: Process) -> Program:
        name = process.name
        alive = self.run_dir / "alive" / name
        metrics = f"127.0.0.1:{self.metrics_port(name)}"
        installation = self.environment
        bind = f"{installation['BIND_ADDRESS']}:{self.metrics_port(name)}"
        own = {
            "WORKER_ALIVE_FILE": str(alive),
            "WORKER_METRICS_ADDRESS": "127.0.0.1",
            "WORKER_METRICS_PORT": str(self.metrics_port(name)),
            "PROMETHEUS_MULTIPROC_DIR": str(self._metrics_directory(name)),
        }
        is_worker = "WORKER_ALIVE_FILE" in process.environment
        if is_worker:
            alive.parent.mkdir(exist_ok=True)
        return Program(
            name=name,
            command=native_command(process, bind),
            environment={
                **native_environment(process, installation, own),
                **self._overrides.get(name, {}),
            },
            directory=ROOT,
            is_ready=(lambda: _is_fresh(alive)) if is_worker else lambda: _is_healthy(bind),
            # A worker answers nothing but questions about its metrics.
            address=f"{metrics} (metrics)" if is_worker else bind,
            stop_as_group=not is_worker,
            stale_files=(alive,) if is_worker else (),
        )


_TITLES = {
    "postgres": "PostgreSQL",
    "redis": "Redis",
    "rabbitmq": "RabbitMQ",
    "rabbitmq_management": "the RabbitMQ console",
    "rabbitmq_metrics": "the metrics of RabbitMQ",
    "epmd": "Erlang port mapper",
    "products_worker_metrics": "the metrics of the products worker",
    "orders_worker_metrics": "the metrics of the orders worker",
}

_ALWAYS_OURS = (
    "rabbitmq_management", "rabbitmq_metrics", "products_worker_metrics", "orders_worker_metrics",
)  # fmt: skip


def _is_fresh(alive_file: Path) -> bool:
    try:
        return time.time() - alive_file.stat().st_mtime < ALIVE_SECONDS
    except FileNotFoundError:
        return False


def _key(secret: str) -> str:
    """Return by which name `state.json` has a secret, ever since there is one."""
    name = secret.lower().removesuffix("_password").removesuffix("_database")
    return "superuser" if name == "postgres" else name


def _is_healthy(bind: str) -> bool:
    # Our own service on this machine: whatever proxy the caller uses has no part in it.
    connection = http.client.HTTPConnection(bind.replace("0.0.0.0", "127.0.0.1", 1), timeout=3)  # noqa: S104 - asks, and does not bind
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
