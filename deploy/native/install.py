"""Put what is missing on this machine, from its own packages, if we may."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from deploy.console import Progress
from deploy.failure import DeployFailure
from deploy.native import chromium, postgres, rabbitmq, redis

_SCRIPT = Path(__file__).with_name("install.sh")

#: Program → how to find it, its Debian package, its name for people.
_PROGRAMS: dict[str, tuple[Callable[[], object | None], str, str]] = {
    "postgres": (postgres.binaries, "postgresql", "PostgreSQL"),
    "redis": (redis.binary, "redis-server", "Redis"),
    "rabbitmq": (rabbitmq.scripts, "rabbitmq-server", "RabbitMQ"),
    "chromium": (chromium.binary, "chromium", "Chromium"),
}


def ensure_installed(programs: Iterable[str], progress: Progress) -> None:
    """Install those of `postgres`, `redis`, `rabbitmq` and `chromium` that this machine lacks.

    Only from Debian's packages, only as root or with a sudo that asks for nothing.
    Nothing that is installed already is changed, and nothing is started.

    :raises DeployFailure: if something is missing and we may not, or cannot, install it
    """
    missing = [name for name in programs if _PROGRAMS[name][0]() is None]
    if not missing:
        return
    names = _listed([_PROGRAMS[name][2] for name in missing])
    packages = [_PROGRAMS[name][1] for name in missing]
    become_root = _root_prefix()
    if become_root is None or shutil.which("apt-get") is None:
        raise DeployFailure(
            f"{names} must be installed on this machine first "
            f"(on Debian or Ubuntu: apt-get install {' '.join(packages)})."
        )
    with progress.step(f"Install {names}"):
        done = subprocess.run(
            [*become_root, "sh", str(_SCRIPT), *packages],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        sys.stderr.write(done.stdout[-2000:] + done.stderr[-2000:])
        raise DeployFailure(f"{names} could not be installed; what apt-get said is above.")
    still_missing = [_PROGRAMS[name][2] for name in missing if _PROGRAMS[name][0]() is None]
    if still_missing:
        raise DeployFailure(
            f"{_listed(still_missing)} was installed but cannot be found in the usual places."
        )


def _root_prefix() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        return None
    allowed = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False)
    return ["sudo", "-n"] if allowed.returncode == 0 else None


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
