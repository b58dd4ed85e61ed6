"""A private RabbitMQ node with its own epmd, its own cookie and its own account."""

import re
import secrets
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.failure import DeployFailure
from deploy.native.ports import answers
from deploy.native.programs import Program
from deploy.settings import ROOT

USER = "shop"

_SHARED_CONFIGURATION = ROOT / "deploy" / "rabbitmq" / "rabbitmq.conf"
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def scripts() -> Path | None:
    """Return the directory of RabbitMQ's own start scripts.

    Not the one on Debian's PATH: that is a wrapper which force on the user
    `rabbitmq` and on that user's one node.
    """
    candidates = sorted(
        Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"),
        key=lambda path: [int(number) for number in re.findall(r"\d+", path.parent.name)],
        reverse=True,
    )
    candidates.append(Path("/usr/lib/rabbitmq/bin"))
    on_path = shutil.which("rabbitmq-server")
    if on_path is not None and "wrapper" not in Path(on_path).resolve().name:
        candidates.append(Path(on_path).resolve().parent)
    for directory in candidates:
        if (directory / "rabbitmq-server").exists():
            return directory
    return None


def epmd() -> str | None:
    """Return the program of Erlang's port mapper."""
    for candidate in sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"), reverse=True):
        return str(candidate)
    return shutil.which("epmd")


@dataclass(frozen=True, kw_only=True)
class RabbitMQ:
    """One RabbitMQ node below `directory`, listening on 127.0.0.1 with everything it has."""

    directory: Path
    port: int
    management_port: int
    metrics_port: int
    distribution_port: int
    epmd_port: int
    password: str

    def prepare(self) -> None:
        """Write the configuration, and the cookie unless there is one."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration = self.directory / "rabbitmq.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            _SHARED_CONFIGURATION.read_text()
            + "\n".join(
                (
                    "",
                    "# Chosen for this machine.",
                    f"listeners.tcp.1 = 127.0.0.1:{self.port}",
                    "management.tcp.ip = 127.0.0.1",
                    f"management.tcp.port = {self.management_port}",
                    "prometheus.tcp.ip = 127.0.0.1",
                    f"prometheus.tcp.port = {self.metrics_port}",
                    # Taken into account when the node is made, and never again.
                    f"default_user = {USER}",
                    f"default_pass = {self.password}",
                    "",
                )
            )
        )
        (self.directory / "advanced.config").write_text("[].\n")
        (self.directory / "enabled_plugins").write_text(
            "[rabbitmq_management, rabbitmq_prometheus].\n"
        )
        # Without one of ours the scripts would read the machine's own.
        (self.directory / "rabbitmq-env.conf").write_text("")
        cookie = self.directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(secrets.token_hex(32))
            cookie.chmod(0o400)

    def programs(self) -> tuple[Program, Program]:
        """Describe the port mapper and the node to supervisord, in the order of their start."""
        # In the foreground, under supervision: the one that a node starts for
        # itself is a daemon, and would outlive `make down`.
        port_mapper = Program(
            name="epmd",
            command=(epmd() or "epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"),
            environment=self._environment(),
            directory=self.directory,
            is_ready=lambda: answers("127.0.0.1", self.epmd_port),
            address=f"127.0.0.1:{self.epmd_port}",
        )
        node = Program(
            name="rabbitmq",
            command=(str(self._scripts() / "rabbitmq-server"),),
            environment=self._environment(),
            directory=self.directory,
            is_ready=self._is_ready,
            address=f"127.0.0.1:{self.port}",
        )
        return port_mapper, node

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` against this node and return what it prints.

        :raises DeployFailure: if it fails
        """
        done = subprocess.run(
            [str(self._scripts() / "rabbitmqctl"), *arguments],
            env={"PATH": _PATH, "LANG": "C.UTF-8", **self._environment()},
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise DeployFailure(f"rabbitmqctl {' '.join(arguments)} failed: {said}")
        return done.stdout

    def _scripts(self) -> Path:
        directory = scripts()
        if directory is None:
            raise DeployFailure("RabbitMQ is not installed on this machine.")
        return directory

    def _environment(self) -> dict[str, str]:
        own = self.directory
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "HOME": str(own),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": str(own / "erl_crash.dump"),
            "ERL_CRASH_DUMP_BYTES": "0",
            "RABBITMQ_NODENAME": f"{USER}@localhost",
            "RABBITMQ_CONF_ENV_FILE": str(own / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(own / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(own / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(own / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(own / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(own / "mnesia"),
            "RABBITMQ_PID_FILE": str(own / "rabbitmq.pid"),
            "RABBITMQ_LOG_BASE": str(own / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            # Erlang's schedulers spin while they wait for work, on cores that others need.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"+sbwt none +sbwtdcpu none +sbwtdio none -start_epmd false {loopback}"
            ),
            "RABBITMQ_CTL_ERL_ARGS": f"-start_epmd false {loopback}",
            # Makes the script become the node instead of waiting beside it, so that
            # the process that supervisord knows is the one that does the work.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _is_ready(self) -> bool:
        # The console is the last to come up.
        return _speaks_amqp(self.port) and answers("127.0.0.1", self.management_port)


def _speaks_amqp(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            # A method frame, Connection.Start; a node that still boots closes the connection.
            return connection.recv(1) == b"\x01"
    except OSError:
        return False
