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
    "CSRF_TRUSTED_ORIGINS": "",
    "DATABASE_POOL_SIZE": "8",
    "DATABASE_STATEMENT_TIMEOUT_MS": "1200",
    "DEBUG": "false",
    "INTAKE_PACE_SECONDS": "0.01",
    "LOG_LEVEL": "INFO",
    "PRICE_MEMORY_SECONDS": "0.25",
    "QUEUE_TYPE": "",
    "WEB_CONNECTIONS": "1000",
    "WORKER_PACE_SECONDS": "0.05",
}

#: Secrets that the first `up` makes up when it writes `.env`.
GENERATED = (
    "SECRET_KEY",
    "POSTGRES_PASSWORD",
    "PRODUCTS_DATABASE_PASSWORD",
    "ORDERS_DATABASE_PASSWORD",
    "BROKER_PASSWORD",
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


def write_env_file(path: Path = ENV_FILE, example: Path = ENV_EXAMPLE) -> bool:
    """Write `.env` from `.env.example` with secrets of its own, unless there is one already.

    Return whether it was written.
    """
    if path.exists():
        return False
    text = example.read_text()
    for name in GENERATED:
        line = f"{name}={secrets.token_urlsafe(36)}"
        text = re.sub(rf"^{name}=$", line, text, flags=re.MULTILINE)
    path.touch(mode=0o600)
    path.write_text(text)
    return True
