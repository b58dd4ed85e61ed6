"""The system in Docker, by way of `docker compose`."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from deploy.failure import DeployFailure
from deploy.native.ports import Ports
from deploy.settings import DEFAULTS, ROOT


def why_not() -> str | None:
    """Say what is missing for Docker to be used; nothing if it can be."""
    if shutil.which("docker") is None:
        return "there is no docker command here"
    if _docker("compose", "version").returncode != 0:
        return "docker is here, but without compose"
    if _docker("info", "--format", "{{.ServerVersion}}").returncode != 0:
        return "no Docker engine answers"
    return None


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses of the system as seen from this machine."""
    ports = Ports.of(settings)
    passwords = {
        role: settings.get(f"{role}_PASSWORD", "")
        for role in ("PRODUCTS_DATABASE", "ORDERS_DATABASE", "BROKER")
    }
    return {
        **DEFAULTS,
        "PRODUCTS_DATABASE_URL": f"postgresql://products:{passwords['PRODUCTS_DATABASE']}"
        f"@127.0.0.1:{ports.postgres}/products",
        "ORDERS_DATABASE_URL": f"postgresql://orders:{passwords['ORDERS_DATABASE']}"
        f"@127.0.0.1:{ports.postgres}/orders",
        "BROKER_URL": f"amqp://shop:{passwords['BROKER']}@127.0.0.1:{ports.rabbitmq}//",
        "CACHE_URL": f"redis://127.0.0.1:{ports.redis}/0",
        "PRODUCT_API_URL": f"http://127.0.0.1:{ports.product}/products",
        "ORDER_API_URL": f"http://127.0.0.1:{ports.order}/orders",
        "RABBITMQ_MANAGEMENT_URL": f"http://shop:{passwords['BROKER']}"
        f"@127.0.0.1:{ports.rabbitmq_management}",
        **settings,
    }


def up() -> None:
    """Build the images, start everything and wait until it is healthy.

    :raises DeployFailure: if something does not get healthy
    """
    run("up", "--build", "--wait", "--wait-timeout", "300")


def is_up() -> bool:
    """Tell whether the two services and the two workers are healthy."""
    listed = _docker("compose", "ps", "--format", "json")
    healthy = set()
    # One JSON object per line; versions of compose before 2.21 print one list.
    for line in listed.stdout.splitlines():
        found = json.loads(line)
        for container in found if isinstance(found, list) else [found]:
            if container.get("Health") == "healthy":
                healthy.add(container["Service"])
    return {"product-service", "order-service", "products-worker", "orders-worker"} <= healthy


def run(*arguments: str) -> None:
    """Run a `docker compose` command on this terminal.

    :raises DeployFailure: if it fails
    """
    done = subprocess.run(
        ["docker", "compose", *arguments], cwd=ROOT, env=_caller_environment(), check=False
    )
    if done.returncode != 0:
        raise DeployFailure(f"docker compose {arguments[0]} failed; what it said is above.")


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = ["docker", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=_caller_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _caller_environment() -> dict[str, str]:
    """Leave out what compose would prefer to `.env`: the shell's own variables."""
    kept = ("PATH", "HOME", "TERM", "LANG", "NO_COLOR", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR")
    return {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.startswith(("DOCKER_", "BUILDKIT_", "COMPOSE_"))
    }
