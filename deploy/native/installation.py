"""What a native system consists of, and what its directory remembers: ports, passwords, places."""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from deploy.addresses import OWNERS, addresses_of
from deploy.console import Progress
from deploy.native import account
from deploy.native.fingerprint import SERVER_SOURCES, SERVICE_SOURCES, fingerprint
from deploy.native.ports import Ports
from deploy.native.postgres import Postgres
from deploy.native.programs import DEFAULTS, Program, native_command, native_environment
from deploy.native.rabbitmq import RabbitMQ
from deploy.native.redis import Redis
from deploy.native.supervision import Supervisor, survivors
from deploy.processes import ONE_SHOTS, SERVICES, Process
from deploy.settings import GENERATED, ROOT

#: A worker touches its file every few seconds; older than this, it does not work.
ALIVE_SECONDS = 30

#: What people call the processes and ports.
TITLES = {
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


class Installation:
    """PostgreSQL, Redis, RabbitMQ and the four processes of the system, below one directory.

    Everything that is chosen by itself (ports, passwords, where the data lies) is
    remembered in that directory, so a second object of the same directory, in this
    process or in another one, means the same system. Several live side by
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
        self._remember(ports)

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

    def runs(self) -> bool:
        """Tell whether anything of it runs, supervised or not."""
        return self._supervisor.is_running() or bool(self._survivors())

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
                self._progress.note(f"Port {wanted} is in use, so {TITLES[name]} gets {chosen}.")
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

    # The processes

    def _survivors(self) -> list[psutil.Process]:
        return survivors(self.run_dir, self._postgres.data, self._redis.directory)

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
            environment=native_environment(process, installation, own),
            directory=ROOT,
            is_ready=(lambda: _is_fresh(alive)) if is_worker else lambda: _is_healthy(bind),
            # A worker answers nothing but questions about its metrics.
            address=f"{metrics} (metrics)" if is_worker else bind,
            stop_as_group=not is_worker,
            stale_files=(alive,) if is_worker else (),
        )


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
