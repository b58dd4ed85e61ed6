"""The file `.env`, which `make up` writes once and completes later."""

import pytest

from deploy.settings import ENV_EXAMPLE, GENERATED, load, write_env_file


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
