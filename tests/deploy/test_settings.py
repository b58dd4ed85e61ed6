"""What an installation is made of: the file `.env`, and the list of its processes."""

import json
import os
import re
import subprocess
from types import SimpleNamespace

import pytest
import yaml

from deploy.addresses import addresses_of
from deploy.by_hand import write_addresses
from deploy.choice import _succeeds
from deploy.console import Progress
from deploy.docker import DockerEngine
from deploy.failure import DeployFailure
from deploy.native.ports import Ports
from deploy.native.stack import Stack
from deploy.processes import ONE_SHOTS, SERVICES
from deploy.settings import (
    COMPOSE,
    DEFAULTS,
    ENV_EXAMPLE,
    GENERATED,
    ROOT,
    expand,
    load,
    write_env_file,
)
from servicekit import environment

INSTALLATION = {
    "SECRET_KEY": "secret",
    "CACHE_URL": "redis://in-use",
    "PRODUCT_API_URL": "http://in-use/products",
    "ORDER_API_URL": "http://in-use/orders",
    "BROKER_URL": "amqp://shop@in-use",
    "ORDERS_DATABASE_URL": "postgresql://orders@in-use/orders",
    "PRODUCTS_DATABASE_URL": "postgresql://products@in-use/products",
}
NARROW = {
    "ORDERS_BROKER_URL": "amqp://orders@in-use",
    "ORDERS_RUNTIME_DATABASE_URL": "postgresql://orders_runtime@in-use/orders",
    "ORDER_PUBLIC_URL": "https://orders.example",
}

CONTAINERS = yaml.safe_load(COMPOSE)["services"]
SECRETS = dict.fromkeys(GENERATED, "secret")


# Where their images declare a volume: Docker makes one of each container's own that has nothing
# else there, and leaves it behind.
VOLUMES = {
    "postgres": "/var/lib/postgresql/data",
    "redis": "/data",
    "rabbitmq": "/var/lib/rabbitmq",
    "prom/prometheus": "/prometheus",
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / ".env"


class TestEnv:
    def test_the_first_one_has_secrets_that_nobody_else_has(self, file):
        assert "wrote .env" in write_env_file(file)

        secrets = [load(file)[name] for name in GENERATED]
        assert len({*secrets, *load(ENV_EXAMPLE).values()}) >= len(GENERATED)
        assert min(map(len, secrets)) >= 50
        assert file.stat().st_mode & 0o777 == 0o600

    def test_one_of_an_earlier_version_gets_the_secrets_that_it_lacks(self, file):
        # Without a newline at its end; an empty value is there on purpose.
        file.write_text(
            "export SECRET_KEY='my#' # old\nPOSTGRES_PASSWORD=\n# BROKER_PASSWORD=\nLOG_LEVEL=INFO"
        )

        said = write_env_file(file)

        missing = set(GENERATED) - {"SECRET_KEY", "POSTGRES_PASSWORD"}
        found = load(file)
        assert found.keys() == {"SECRET_KEY", "LOG_LEVEL", *missing}
        assert (found["SECRET_KEY"], found["LOG_LEVEL"]) == ("my#", "INFO")
        assert all(name in said for name in missing)
        assert write_env_file(file) == ""

    @pytest.mark.parametrize("line", ["LOG_LEVEL", "see below", "='x'", "LOG_LEVEL='INFO"])
    def test_a_line_that_means_nothing_is_named(self, file, line):
        file.write_text(f"# mine\n{line}\n")

        with pytest.raises(DeployFailure, match="line 2"):
            load(file)

    def test_the_example_has_every_variable_and_its_default(self):
        example = dict(re.findall(r"(?m)^(?:# )?([A-Z][A-Z0-9_]*)=(.*)$", ENV_EXAMPLE.read_text()))
        ports = {f"{name.upper()}_PORT": str(port) for name, port in Ports().to_json().items()}
        servers = addresses_of(Ports(), SECRETS).keys()

        assert set(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE)) == DEFAULTS.items()
        assert {**DEFAULTS, **ports} == {**ports, **DEFAULTS}
        assert example.keys() == {*DEFAULTS, *ports, *GENERATED, *servers}
        given = {name: value for name, value in example.items() if value and name not in servers}
        assert given.items() <= {**DEFAULTS, **ports}.items()


class TestContainers:
    @pytest.mark.skipif(
        not _succeeds("docker", "compose", "version"), reason="there is no docker compose"
    )
    def test_are_read_as_compose_reads_them(self):
        settings = {**SECRETS, "LOG_LEVEL": "DEBUG", "RATE_LIMIT_PER_KEY": ""}
        done = subprocess.run(
            ["docker", "compose", "--env-file", os.devnull, "config", "--format", "json"],
            cwd=ROOT, env={"PATH": os.environ["PATH"], **settings}, capture_output=True, check=True,
        )  # fmt: skip
        found = json.loads(done.stdout)["services"]

        for process in (*ONE_SHOTS, *SERVICES):
            assert found[process.name]["command"] == [*process.command]
            assert found[process.name]["environment"] == {
                name: expand(value, settings) for name, value in process.environment.items()
            }

    @pytest.mark.parametrize("name", CONTAINERS)
    def test_have_no_more_than_they_need(self, name):
        container = CONTAINERS[name]

        assert container["read_only"]
        assert container["cap_drop"] == ["ALL"]
        assert container["security_opt"] == ["no-new-privileges:true"]
        assert container["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
        # Whose images would start as root; ours, and those that watch, say so themselves.
        if name.startswith(("postgres", "redis", "rabbitmq")):
            assert container["user"] != "root"
        for port in container.get("ports", []):
            assert port.startswith(("127.0.0.1:", "${BIND_ADDRESS:-127.0.0.1}:"))
        # Docker would make an empty directory of a file that is not there.
        mounted = [each.split(":")[0] for each in container.get("volumes", [])]
        assert all((ROOT / each).is_file() for each in mounted if each.startswith("."))
        assert "build" in container or container.get("pull_policy") == "never" or re.search(
            r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?$", container["image"]
        )  # fmt: skip

    @pytest.mark.parametrize("name", CONTAINERS)
    def test_leave_no_volume_behind(self, name):
        container = CONTAINERS[name]
        mounted = [each.split(":")[1] for each in container.get("volumes", [])]
        in_memory = [each.split(":")[0] for each in container["tmpfs"]]

        volume = VOLUMES.get(container["image"].split(":")[0])
        assert volume is None or volume in (*mounted, *in_memory)

    def test_may_read_what_only_its_owner_could_and_stay_when_their_image_does(
        self, tmp_path, monkeypatch
    ):
        mounted = [each for one in CONTAINERS.values() for each in one.get("volumes", [])]
        files = [tmp_path / each.split(":")[0] for each in mounted if each.startswith("./")]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
        docker = tmp_path / "docker"
        docker.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\n")
        docker.chmod(0o755)
        monkeypatch.setattr("deploy.docker.ROOT", tmp_path)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        ports = Ports.free().to_json().items()
        settings = {f"{name.upper()}_PORT": str(port) for name, port in ports}

        DockerEngine(settings, Progress()).up()

        assert len(files) > 5
        assert {file.stat().st_mode & 0o777 for file in files} == {0o644}
        assert "BUILDX_NO_DEFAULT_ATTESTATIONS=1\n" in (tmp_path / "environment").read_text()

    @pytest.mark.parametrize("process", SERVICES, ids=lambda process: process.name)
    def test_wait_for_what_they_use(self, process):
        databases = {name for name in process.environment if name.endswith("_DATABASE_URL")}
        needed = {each.name for each in ONE_SHOTS if databases & each.environment.keys()}
        # The product service declares no queues.
        needed |= {"broker-prepare"} - {process.name.replace("product-service", "broker-prepare")}

        conditions = {CONTAINERS[process.name]["depends_on"][name]["condition"] for name in needed}
        assert conditions == {"service_completed_successfully"}
        assert CONTAINERS[process.name]["healthcheck"]["test"]


class TestNatively:
    @pytest.mark.parametrize(
        ("settings", "service", "prepare", "broker"),
        [
            ({}, "//orders_runtime:", "//orders:", "//orders:"),
            (
                {"ORDERS_DATABASE_URL": "db://mine", "BROKER_URL": "amqp://mine"},
                "db://mine", "db://mine", "amqp://mine",
            ),
            (
                {"ORDERS_DATABASE_URL": "db://mine", "ORDERS_RUNTIME_DATABASE_URL": "db://less",
                 "BROKER_URL": "amqp://mine", "ORDERS_BROKER_URL": "amqp://less"},
                "db://less", "db://mine", "amqp://less",
            ),
        ],
    )  # fmt: skip
    def test_processes_reach_what_env_names_for_them(
        self, tmp_path, settings, service, prepare, broker
    ):
        stack = Stack(tmp_path, Ports.free(), settings=settings)
        by_name = {each.name: stack._program_of(each) for each in (*ONE_SHOTS, *SERVICES)}

        assert service in by_name["order-service"].environment["ORDERS_DATABASE_URL"]
        assert prepare in by_name["orders-prepare"].environment["ORDERS_DATABASE_URL"]
        assert broker in by_name["orders-worker"].environment["BROKER_URL"]
        assert ("rabbitmq" in stack.private_servers) == ("BROKER_URL" not in settings)

    def test_processes_meet_no_container(self, tmp_path):
        stack = Stack(tmp_path, Ports.free())

        for process in (*ONE_SHOTS, *SERVICES):
            program = stack._program_of(process)
            said = [*program.command, *program.environment.values()]
            assert not [each for each in said if re.search(r"0\.0\.0\.0|@(?!127)|\$|^/tmp/a", each)]
            assert program.environment.get("ALLOWED_HOSTS", "") in ("", "localhost,127.0.0.1")
            assert program.environment.get("LOG_FORMAT", "text") == "text"


class TestAProcessThatIsStartedByHand:
    @pytest.fixture(autouse=True)
    def clone(self, tmp_path, monkeypatch):
        monkeypatch.setattr(environment, "_REPOSITORY", tmp_path)
        monkeypatch.setattr(environment._Files, "ENVIRON", {})
        monkeypatch.setattr(environment, "os", SimpleNamespace(environ={}))
        (tmp_path / ".env").write_text("LOG_LEVEL=DEBUG\nCACHE_URL=redis://before\nHSTS=\n")
        return tmp_path

    @pytest.mark.parametrize(
        ("command", "role"),
        [("runserver", "orders_runtime"), ("migrate", "orders"), ("prepare", "orders")],
    )
    def test_is_who_the_service_is_and_owns_tables_only_to_migrate(
        self, clone, monkeypatch, command, role
    ):
        write_addresses({**INSTALLATION, **NARROW}, clone / ".run")
        monkeypatch.setattr("sys.argv", ["manage.py", command])
        environment.read_files("orders")

        assert environment.os.environ["ORDERS_DATABASE_URL"] == f"postgresql://{role}@in-use/orders"
        assert environment.os.environ["BROKER_URL"] == "amqp://orders@in-use"
        assert environment.os.environ["PUBLIC_URL"] == "https://orders.example"

    def test_uses_the_one_account_that_there_is(self, clone):
        write_addresses(INSTALLATION, clone / ".run")
        environment.read_files("orders")

        assert environment.os.environ["ORDERS_DATABASE_URL"] == INSTALLATION["ORDERS_DATABASE_URL"]
        assert environment.os.environ["BROKER_URL"] == INSTALLATION["BROKER_URL"]

    def test_heeds_the_environment_then_the_addresses_in_use_then_env(self, clone):
        write_addresses(INSTALLATION, clone / ".run")
        environment.os.environ["BROKER_URL"] = "amqp://mine"
        environment.read_files("orders")

        found = [
            environment.os.environ.get(name)
            for name in ("BROKER_URL", "CACHE_URL", "LOG_LEVEL", "HSTS")
        ]
        assert found == ["amqp://mine", "redis://in-use", "DEBUG", None]
        assert {file.stat().st_mode & 0o777 for file in (clone / ".run").iterdir()} == {0o600}

    def test_reads_nothing_when_it_is_given_all(self):
        environment.os.environ["SECRET_KEY"] = "given"
        environment.read_files("orders")

        assert environment.os.environ == {"SECRET_KEY": "given"}
