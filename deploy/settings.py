"""The settings of an installation: the file `.env`, and nothing else.

The environment of the shell that calls `make up` does not count. A `BROKER_URL`
exported for some other project would otherwise be used here without a word.
"""

import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from deploy.failure import DeployFailure

ROOT = Path(__file__).resolve().parent.parent
ENV_FILE = ROOT / ".env"
ENV_EXAMPLE = ROOT / ".env.example"

#: Values that are right on one machine, used where `.env` says nothing.
DEFAULTS: Mapping[str, str] = {
    "ADMIN_PASSWORD": "admin",
    "ADMIN_USERNAME": "admin",
    "ALLOWED_HOSTS": "localhost,127.0.0.1",
    "BIND_ADDRESS": "127.0.0.1",
    "CELERY_REMOTE_CONTROL": "true",
    "CSRF_TRUSTED_ORIGINS": "",
    "DATABASE_POOL_SIZE": "8",
    "DATABASE_STATEMENT_TIMEOUT_MS": "1200",
    "DEBUG": "false",
    "FORWARDED_ALLOW_IPS": "127.0.0.1,::1",
    "INTAKE_PACE_SECONDS": "0.01",
    "LOG_LEVEL": "INFO",
    "PRICE_MAX_AGE_SECONDS": "10",
    "PRICE_MAX_AGE_WITHOUT_SOURCE_SECONDS": "3600",
    "PRICE_MEMORY_SECONDS": "0.25",
    "QUEUE_TYPE": "",
    "RATE_LIMIT_PER_ADDRESS": "",
    "RATE_LIMIT_PER_KEY": "",
    "REQUIRE_API_KEY": "false",
    "WEB_CONNECTIONS": "1000",
    "WORKER_PACE_SECONDS": "0.05",
}

#: Secrets that the first `up` makes up when it writes `.env`.
GENERATED = (
    "SECRET_KEY",
    "POSTGRES_PASSWORD",
    "PRODUCTS_DATABASE_PASSWORD",
    "PRODUCTS_RUNTIME_DATABASE_PASSWORD",
    "ORDERS_DATABASE_PASSWORD",
    "ORDERS_RUNTIME_DATABASE_PASSWORD",
    "BROKER_PASSWORD",
    "PRODUCTS_BROKER_PASSWORD",
    "ORDERS_BROKER_PASSWORD",
)

_ASSIGNMENT = re.compile(r"^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$")


def parse(text: str) -> dict[str, str]:
    """Read `NAME=value` lines as Docker Compose does, leaving out what has no value.

    :raises DeployFailure: if a line is neither an assignment, nor a comment, nor empty
    """
    values: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        assignment = _ASSIGNMENT.match(line)
        if assignment is None:
            raise DeployFailure(f".env, line {number}: expected NAME=value.")
        name, value = assignment.groups()
        if value[:1] in {"'", '"'}:
            value = value[1:].partition(value[0])[0]
        else:
            value = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()
        if value:
            values[name] = value
    return values


def load(path: Path = ENV_FILE) -> dict[str, str]:
    """Return what `.env` sets, or nothing where there is no such file."""
    return parse(path.read_text()) if path.exists() else {}


def write_env_file(path: Path = ENV_FILE, example: Path = ENV_EXAMPLE) -> str:
    """Write `.env` from `.env.example` with secrets of its own, or the secrets that it lacks.

    Return what was done, in words, or nothing.
    """
    before = path.read_text() if path.exists() else example.read_text()
    lines = {name: f"{name}={secrets.token_urlsafe(48)}" for name in GENERATED}
    if not path.exists():
        text = before
        for name, line in lines.items():
            text = re.sub(rf"^{name}=$", line, text, flags=re.MULTILINE)
        path.touch(mode=0o600)
        path.write_text(text)
        return "wrote .env, with secrets of its own, from .env.example"
    # One that is there and empty is so on purpose: natively it means one of `.run/`.
    missing = [name for name in GENERATED if not re.search(rf"(?m)^(export )?{name}\s*=", before)]
    if not missing:
        return ""
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in ("", *(lines[name] for name in missing)))
    return f"added to .env, made up: {', '.join(missing)}"
