"""Which of the two ways to run the system this machine takes."""

import os
import shutil
import subprocess
from collections.abc import Mapping

from deploy.console import Progress
from deploy.docker import DockerEngine
from deploy.failure import DeployFailure
from deploy.native.engine import NativeEngine

#: What runs the system: every verb of `make` means the same with each.
Engine = DockerEngine | NativeEngine


def choose(settings: Mapping[str, str], progress: Progress) -> Engine:
    """Return the engine for this machine: Docker where one answers, else native.

    `MODE=docker` or `MODE=native` decides without looking.

    :raises DeployFailure: if `MODE` is something else, or asks for what is not there
    """
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
