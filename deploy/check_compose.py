"""Whether `docker-compose.yml` says what the rest of the repository says: `make check`.

The file repeats the list of processes in `deploy.processes`, the defaults in
`deploy.settings`, and the names in `.env.example`. One line is printed per difference.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import yaml

from deploy.native.ports import Ports
from deploy.processes import ONE_SHOTS, SERVICES, Process
from deploy.settings import DEFAULTS, ENV_EXAMPLE, GENERATED, ROOT

COMPOSE_FILE = ROOT / "docker-compose.yml"

#: Servers of others, which the processes stand on.
INFRASTRUCTURE = ("postgres", "postgres-prepare", "redis", "rabbitmq")

#: What looks at the system from outside, and is started when it is asked for: by profile.
MONITORING = {"prometheus": "monitoring", "grafana": "monitoring"}

LIMITS = {"cpus": "2", "memory": "512M"}

#: Made up by the compose file itself, so nobody sets them.
_FIXED = {
    "OTEL_SERVICE_NAME",
    "PROMETHEUS_MULTIPROC_DIR",
    "PUBLIC_URL",
    "WORKER_ALIVE_FILE",
    "WORKER_METRICS_ADDRESS",
    "WORKER_METRICS_PORT",
}

#: Whom the servers run as: their images would otherwise start as root. Those of the monitoring
#: do not, and ours says so itself.
_USERS = {"postgres": "postgres", "postgres-prepare": "postgres", "redis": "redis",
          "rabbitmq": "rabbitmq"}  # fmt: skip

#: What all containers have taken from them.
_CONFINED = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}

_EXACT = re.compile(r"(postgres:\d+\.\d+|:v?\d+\.\d+\.\d+)(-[a-z]+)?$")
_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?P<operator>:[-?])(?P<rest>[^}]*)\})")
_EXAMPLE = re.compile(r"^(?:# ?)?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)

Service = Mapping[str, Any]
Services = Mapping[str, Service]


def differences(compose: str, example: str) -> Iterator[str]:
    """Say, in a sentence each, what a compose file and an example of `.env` have wrong."""
    services: Services = _expanded(yaml.safe_load(compose)).get("services", {})
    processes = {process.name: process for process in (*ONE_SHOTS, *SERVICES)}
    known = {*processes, *INFRASTRUCTURE, *MONITORING}
    for name in sorted(known - services.keys()):
        yield f"{name}: is missing from docker-compose.yml"
    for name in sorted(services.keys() - known):
        yield f"{name}: is not in deploy/processes.py"
    for name, service in services.items():
        yield from _about_any(name, service)
        if name in processes:
            yield from _about_process(processes[name], service)
            yield from _about_addresses(name, service, services)
        else:
            yield from _about_server(name, service)
    yield from _about_image([services[name] for name in processes if name in services])
    yield from _about_variables(compose, example)


def _about_any(name: str, service: Service) -> Iterator[str]:
    limits = service.get("deploy", {}).get("resources", {}).get("limits")
    if limits != LIMITS:
        yield f"{name}: limits are {limits}, not {LIMITS}"
    is_one_shot = name in {"postgres-prepare", *(process.name for process in ONE_SHOTS)}
    restart = "no" if is_one_shot else "unless-stopped"
    if service.get("restart") != restart:
        yield f"{name}: restart is {service.get('restart')!r}, not {restart!r}"
    if not is_one_shot and not service.get("healthcheck", {}).get("test"):
        yield f"{name}: has no health check"

    for key, value in {**_CONFINED, "user": _USERS.get(name)}.items():
        if service.get(key) != value:
            yield f"{name}: {key} is {service.get(key)!r}, not {value!r}"
    image = str(service.get("image"))
    if service.get("pull_policy") not in ("never", "build") and not _EXACT.search(image):
        yield f"{name}: the image {image} is of no exact version"

    profiles = [MONITORING[name]] if name in MONITORING else []
    if service.get("profiles", []) != profiles:
        yield f"{name}: its profiles are {service.get('profiles', [])}, not {profiles}"
    for volume in service.get("volumes", []):
        source, target, *_ = str(volume).split(":")
        # Docker would make an empty directory of a file that is not there.
        if source.startswith(".") and not (ROOT / source).is_file():
            yield f"{name}: mounts {source} on {target}, which is no file"


def _about_process(process: Process, service: Service) -> Iterator[str]:
    name = process.name
    expected = process.command_line(f"0.0.0.0:{process.port}")
    found = _words(service.get("command", []))
    if found != expected:
        yield f"{name}: command is {shlex.join(found)!r}, not {shlex.join(expected)!r}"

    environment: Mapping[str, str] = service.get("environment", {})
    for variable in sorted(set(process.environment) - environment.keys()):
        yield f"{name}: is not given {variable}"
    for variable in sorted(environment.keys() - set(process.environment)):
        yield f"{name}: is given {variable}, which deploy/processes.py does not list"
    for variable, default in process.defaults.items():
        if variable in environment and environment[variable] != default:
            yield f"{name}: {variable} defaults to {environment[variable]!r}, not {default!r}"

    for variable, source in process.names.items():
        # `PRODUCTS_BROKER_URL` is that of the user `products`.
        user = re.sub("_(BROKER|DATABASE)_URL$", "", source).lower()
        found_user = urlsplit(environment.get(variable, "")).username
        if user not in (found_user, source.lower()):
            yield f"{name}: {variable} is that of {found_user}, not of {user}"

    ports = [_target(port) for port in service.get("ports", [])]
    if ports != [str(process.port)] * (process.port is not None):
        yield f"{name}: publishes the ports {ports}, not {process.port}"

    if not any(_words(mount)[0].startswith("/tmp") for mount in service.get("tmpfs", [])):  # noqa: S108 - a mount point
        yield f"{name}: has no tmpfs on /tmp, and can write nowhere else"
    yield from _about_order(process, service)


def _about_order(process: Process, service: Service) -> Iterator[str]:
    """Compare what is waited for: a server before it is prepared, prepared before it is used."""
    waits_for: Mapping[str, Any] = service.get("depends_on", {})
    if process.name == "broker-prepare":
        expected = {"rabbitmq": "service_healthy"}
    elif process in ONE_SHOTS:
        expected = {"postgres-prepare": "service_completed_successfully"}
    else:
        # Whoever uses the same database prepares it.
        databases = {name for name in process.environment if name.endswith("_DATABASE_URL")}
        expected = {
            one_shot.name: "service_completed_successfully"
            for one_shot in ONE_SHOTS
            if databases & set(one_shot.environment)
        }
        # Queues are declared when their policies are there. The product service declares none.
        if "BROKER_URL" in process.environment and process.name != "product-service":
            expected["broker-prepare"] = "service_completed_successfully"
    for name, condition in expected.items():
        if waits_for.get(name, {}).get("condition") != condition:
            yield f"{process.name}: does not wait for {name} with {condition}"


def _about_addresses(name: str, service: Service, services: Services) -> Iterator[str]:
    for variable, value in service.get("environment", {}).items():
        if not (value and variable.endswith("_URL")):
            continue
        host = urlsplit(value).hostname or ""
        if host not in services:
            yield f"{name}: {variable} names the host {host!r}, which is no service"
            continue
        allowed = services[host].get("environment", {}).get("ALLOWED_HOSTS")
        if allowed is not None and host not in allowed.split(","):
            yield f"{host}: ALLOWED_HOSTS lacks {host!r}, under which {name} calls it"


def _about_server(name: str, service: Service) -> Iterator[str]:
    for port in service.get("ports", []):
        if not str(port).startswith("127.0.0.1:"):
            yield f"{name}: port {port} is not bound to 127.0.0.1"


def _about_image(ours: list[Service]) -> Iterator[str]:
    images = {str(service.get("image")) for service in ours}
    if len(images) != 1:
        yield f"our containers have the images {sorted(images)}, not one"
    builders = [service["build"] for service in ours if "build" in service]
    if len(builders) != 1:
        # Two builds that end in the same name at the same time can fail each other.
        yield f"the image is built by {len(builders)} services, not by one"
    for build in builders:
        dockerfile = build.get("dockerfile", "Dockerfile")
        if not (ROOT / build["context"] / dockerfile).is_file():
            yield f"the image is built from {dockerfile}, which does not exist"


def _about_variables(compose: str, example: str) -> Iterator[str]:
    """Compare what Compose reads from `.env`, what the processes see, and `.env.example`."""
    ports = {f"{name.upper()}_PORT": str(port) for name, port in Ports().to_json().items()}
    defaults = {**DEFAULTS, **ports}
    processes = (*ONE_SHOTS, *SERVICES)
    seen = {name for each in processes for name in (*each.environment, *each.names.values())}
    documented = dict(_EXAMPLE.findall(example))

    read = set()
    for reference in _REFERENCE.finditer(compose):
        name, rest = reference["name"], reference["rest"]
        if name is None:
            continue
        read.add(name)
        if name in GENERATED:
            if reference["operator"] != ":?":
                yield f"docker-compose.yml: {name} is a secret, and must be written ${{{name}:?…}}"
        elif reference["operator"] == ":-" and rest != defaults.get(name, rest):
            yield f"docker-compose.yml: {name} defaults to {rest!r}, not {defaults[name]!r}"

    for name in sorted(
        (read | seen | defaults.keys() | set(GENERATED)) - documented.keys() - _FIXED
    ):
        yield f".env.example: lacks {name}"
    for name in sorted(documented.keys() - read - seen - defaults.keys() - set(GENERATED)):
        yield f".env.example: nobody reads {name}"
    for name, value in documented.items():
        if name in GENERATED and value:
            yield f".env.example: {name} has a value, so everybody would have the same secret"
        elif value and value != defaults.get(name, value):
            yield f".env.example: {name} is {value!r}, where the default is {defaults[name]!r}"


def _expanded(value: Any) -> Any:
    """Put in what Compose would with a `.env` that sets nothing but secrets."""
    if isinstance(value, str):
        return _REFERENCE.sub(_default, value)
    if isinstance(value, list):
        return [_expanded(each) for each in value]
    if isinstance(value, dict):
        return {key: _expanded(each) for key, each in value.items()}
    return value


def _default(reference: re.Match[str]) -> str:
    if reference["dollar"]:
        return "$"
    return reference["rest"] if reference["operator"] == ":-" else "secret"


def _words(command: str | list[str]) -> list[str]:
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


def _target(port: object) -> str:
    return str(port).rpartition(":")[2]


def _compose_refuses() -> Iterator[str]:
    """Ask Compose itself, which needs no engine for it; say so where there is no Compose."""
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        print("docker compose config: skipped, there is no compose client here")
        return
    done = subprocess.run(
        [docker, "compose", "--env-file", str(ENV_EXAMPLE), "config", "--quiet"],
        cwd=ROOT,
        env={**os.environ, **dict.fromkeys(GENERATED, "for-checks-only")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        yield f"docker compose config: {done.stderr.strip()}"


def main() -> int:
    """Print every difference; return 1 if there is one."""
    found = [*differences(COMPOSE_FILE.read_text(), ENV_EXAMPLE.read_text()), *_compose_refuses()]
    for difference in found:
        print(difference, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
