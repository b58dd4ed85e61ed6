"""The two ways to run the system, and which of them this machine takes."""

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from deploy.console import Progress
from deploy.failure import DeployFailure

ADDRESSES = (
    "PRODUCTS_DATABASE_URL",
    "ORDERS_DATABASE_URL",
    "BROKER_URL",
    "CACHE_URL",
    "PRODUCT_API_URL",
    "ORDER_API_URL",
)
"""What `make env` prints, and what the tools that look at a running system are given."""


class Engine(ABC):
    """Runs the system. Every verb of `make` means the same with each engine."""

    @property
    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """The addresses of the running system, as seen from this machine."""

    @property
    @abstractmethod
    def management_url(self) -> str:
        """RabbitMQ's console, for a browser."""

    @abstractmethod
    def is_up(self) -> bool:
        """Tell whether everything runs and is ready."""

    @abstractmethod
    def up(self) -> None:
        """Bring up what is not up, and return when all is ready.

        :raises DeployFailure: if something cannot be brought up
        """

    @abstractmethod
    def down(self) -> None:
        """Stop everything; the data stays."""

    @abstractmethod
    def clean(self) -> None:
        """Stop everything and throw its data away."""

    @abstractmethod
    def ps(self) -> None:
        """Print what runs."""

    @abstractmethod
    def logs(self, *, follow: bool, names: Sequence[str]) -> None:
        """Print what the processes said, and go on printing if asked to."""


def choose(settings: Mapping[str, str], progress: Progress) -> Engine:
    """Return the engine for this machine: Docker where one answers, else native.

    `MODE=docker` or `MODE=native` decides without looking.

    :raises DeployFailure: if `MODE` is something else, or asks for what is not there
    """
    # Imported here, because each of them needs what only its own way has installed.
    from deploy.docker import DockerEngine  # noqa: PLC0415
    from deploy.native.engine import NativeEngine  # noqa: PLC0415

    mode = os.environ.get("MODE", "")
    if mode not in {"", "docker", "native"}:
        raise DeployFailure(f"MODE must be 'docker' or 'native', not {mode!r}.")
    obstacle = "MODE says so" if mode == "native" else docker_obstacle()
    if mode == "docker" and obstacle:
        raise DeployFailure(f"MODE=docker, but {obstacle}.")
    if obstacle:
        progress.note(f"running natively on this machine ({obstacle})")
        return NativeEngine(settings, progress)
    progress.note("running with Docker (an engine answers here)")
    return DockerEngine(settings, progress)


def docker_obstacle() -> str | None:
    """Return what keeps Docker from being used here, or None when nothing does."""
    if shutil.which("docker") is None:
        return "there is no Docker here"
    if not _succeeds("docker", "info"):
        return "no Docker engine answers here"
    if not _succeeds("docker", "compose", "version"):
        return "Docker has no compose plugin here"
    return None


def _succeeds(*command: str) -> bool:
    try:
        finished = subprocess.run(command, capture_output=True, check=False, timeout=15)
    except subprocess.TimeoutExpired:
        return False
    return finished.returncode == 0
