"""The file `.env`, which `make up` writes once and completes later."""

from types import SimpleNamespace

import pytest

from deploy.by_hand import write_addresses
from deploy.settings import ENV_EXAMPLE, GENERATED, load, write_env_file
from servicekit import environment

INSTALLATION = {
    "SECRET_KEY": "secret",
    "CACHE_URL": "redis://in-use",
    "PRODUCT_API_URL": "http://in-use/products",
    "BROKER_URL": "amqp://shop@in-use",
    "ORDERS_DATABASE_URL": "postgresql://orders@in-use/orders",
    "PRODUCTS_DATABASE_URL": "postgresql://products@in-use/products",
}
NARROW = {
    "ORDERS_BROKER_URL": "amqp://orders@in-use",
    "ORDERS_RUNTIME_DATABASE_URL": "postgresql://orders_runtime@in-use/orders",
    "ORDER_PUBLIC_URL": "https://orders.example",
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / ".env"


def test_the_first_one_has_secrets_that_nobody_else_has(file):
    assert "wrote .env" in write_env_file(file)

    secrets = [load(file)[name] for name in GENERATED]
    assert len({*secrets, *load(ENV_EXAMPLE).values()}) >= len(GENERATED)
    assert min(map(len, secrets)) >= 50
    assert file.stat().st_mode & 0o777 == 0o600


def test_one_of_an_earlier_version_gets_the_secrets_that_it_lacks(file):
    # Without a newline at its end; an empty value is there on purpose.
    file.write_text(
        "export SECRET_KEY=mine\nPOSTGRES_PASSWORD=\n# BROKER_PASSWORD=\nLOG_LEVEL=INFO"
    )

    said = write_env_file(file)

    missing = set(GENERATED) - {"SECRET_KEY", "POSTGRES_PASSWORD"}
    found = load(file)
    assert found.keys() == {"SECRET_KEY", "LOG_LEVEL", *missing}
    assert (found["SECRET_KEY"], found["LOG_LEVEL"]) == ("mine", "INFO")
    assert all(name in said for name in missing)
    assert write_env_file(file) == ""


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
