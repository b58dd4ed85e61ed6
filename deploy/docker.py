"""The system in containers, by Docker Compose."""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence

from deploy.addresses import addresses_of
from deploy.console import Progress
from deploy.failure import DeployFailure
from deploy.native.ports import Ports, require_free
from deploy.processes import ONE_SHOTS, SERVICES
from deploy.settings import COMPOSE, DEFAULTS, GENERATED, ROOT

_READ_BY_OTHERS = 0o044


class DockerEngine:
    """Runs `docker-compose.yml`; Compose reads `.env` by itself."""

    def __init__(self, settings: Mapping[str, str], progress: Progress) -> None:
        self._settings = {**DEFAULTS, **settings}
        self._progress = progress

    @property
    def environment(self) -> dict[str, str]:
        """The settings, and the published addresses."""
        passwords = {**dict.fromkeys(GENERATED, ""), **self._settings}
        return {**self._settings, **addresses_of(Ports.of(self._settings), passwords)}

    @property
    def pids(self) -> dict[str, int]:
        """None: what runs in containers is not ours to look up."""
        return {}

    def is_up(self) -> bool:
        """Tell whether every service of the file runs and is healthy."""
        healthy = {each["Service"] for each in self._running() if each.get("Health") == "healthy"}
        return {each.name for each in SERVICES} <= healthy

    def runs(self) -> bool:
        """Tell whether any of its containers runs."""
        return bool(self._running())

    def up(self) -> None:
        """Build the image, start everything, wait until all is healthy.

        :raises DeployFailure: if ports are taken, or something does not get healthy
        """
        if not self.runs():
            ports = Ports.of(self._settings)
            variables = [f"{name.upper()}_PORT" for name in ports.to_json()]
            published = {each: "127.0.0.1" for each in variables if each in DEFAULTS}
            bind = dict.fromkeys(("PRODUCT_PORT", "ORDER_PORT"), self._settings["BIND_ADDRESS"])
            require_free({**published, **bind}, ports)
        _let_containers_read()
        try:
            self._compose("up", "--build", "--detach", "--wait")
        except DeployFailure:
            # What keeps the services from being started is said there, and by Compose nowhere.
            names = ["postgres-prepare", *(one.name for one in ONE_SHOTS)]
            self._compose("logs", "--no-log-prefix", "--tail", "1", *names)
            raise

    def down(self) -> None:
        """Stop and remove the containers; the volumes stay."""
        self._compose("down")

    def clean(self) -> None:
        """Remove the containers and their volumes."""
        self._compose("down", "--volumes", "--remove-orphans")

    def ps(self) -> None:
        """Print Compose's table."""
        print(self._compose("ps", "--all", capture=True), end="")

    def logs(self, *, follow: bool, names: Sequence[str]) -> None:
        """Print the last lines of every container."""
        self._compose("logs", "--tail", "100", *(["--follow"] if follow else []), *names)

    def _running(self) -> list[dict[str, str]]:
        listed = self._compose("ps", "--format", "json", capture=True)
        return [json.loads(line) for line in listed.splitlines() if line.startswith("{")]

    def _compose(self, *arguments: str, capture: bool = False) -> str:
        finished = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=ROOT,
            # What was started beside `make up` is shown, and stopped, with the rest.
            env=_docker_environment(profiles="" if arguments[0] == "up" else "monitoring"),
            check=False,
            stdout=subprocess.PIPE if capture else None,
            text=True,
        )
        if finished.returncode != 0:
            raise DeployFailure(f"`docker compose {arguments[0]}` failed; see above.")
        return finished.stdout or ""


def _let_containers_read() -> None:
    """Open the mounted files to the users of the containers, whom a umask of 077 keeps out."""
    for name in re.findall(r"\./(deploy/[^:]+):", COMPOSE):
        file = ROOT / name
        mode = file.stat().st_mode
        if mode | _READ_BY_OTHERS != mode:
            file.chmod(mode | _READ_BY_OTHERS)


def _docker_environment(*, profiles: str) -> dict[str, str]:
    # Compose would let the shell's variables win over `.env`, where only `.env` is to count.
    passed = ("PATH", "HOME", "USER", "XDG_RUNTIME_DIR")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in passed or name.startswith(("DOCKER_", "BUILDKIT_"))
    }
    # With what Docker attests by default, an image that is built again is another one to engines
    # with containerd's image store, and each `make up` would replace every container.
    environment["BUILDX_NO_DEFAULT_ATTESTATIONS"] = "1"
    return {**environment, "COMPOSE_PROFILES": profiles}
