"""The settings of an installation: the file `.env`, and nothing else.

The environment of the shell that calls `make up` does not count. A `BROKER_URL`
exported for some other project would otherwise be used here without a word.
"""

import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from dotenv.parser import parse_stream

from deploy.failure import DeployFailure

ROOT = Path(__file__).resolve().parent.parent
ENV_FILE = ROOT / ".env"
ENV_EXAMPLE = ROOT / ".env.example"
COMPOSE = (ROOT / "docker-compose.yml").read_text()

_REFERENCE = re.compile(r"\$(?:\$|\{(?P<name>\w+):(?P<kind>[-?])(?P<rest>[^}]*)\})")

#: What is used where `.env` says nothing, and the secrets that the first `up` makes up: by what
#: `docker-compose.yml` says of its variables, `${NAME:-default}` or `${NAME:?…}`.
DEFAULTS: Mapping[str, str] = {
    each["name"]: each["rest"] for each in _REFERENCE.finditer(COMPOSE) if each["kind"] == "-"
}
GENERATED = tuple(
    dict.fromkeys(each["name"] for each in _REFERENCE.finditer(COMPOSE) if each["kind"] == "?")
)


def expand(text: str, settings: Mapping[str, str]) -> str:
    """Put settings into a text of `docker-compose.yml` as Compose does."""

    def value(reference: re.Match[str]) -> str:
        name, is_optional = reference["name"], reference["kind"] == "-"
        if name is None:
            return "$"
        return (settings.get(name) or reference["rest"]) if is_optional else settings[name]

    return _REFERENCE.sub(value, text)


def load(path: Path = ENV_FILE) -> dict[str, str]:
    """Return what `.env` sets to something; nothing where there is no such file.

    :raises DeployFailure: if a line is neither an assignment, nor a comment, nor empty
    """
    return {name: value for name, value in _read(path).items() if value}


def _read(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    if path.exists():
        with path.open() as file:
            for each in parse_stream(file):
                if each.error or (each.key and each.value is None):
                    raise DeployFailure(f".env, line {each.original.line}: expected NAME=value.")
                if each.key is not None:
                    found[each.key] = each.value or ""
    return found


def write_env_file(path: Path = ENV_FILE, example: Path = ENV_EXAMPLE) -> str:
    """Write `.env` from `.env.example` with secrets of its own, or the secrets that it lacks.

    Return what was done, in words, or nothing.
    """
    lines = {name: f"{name}={secrets.token_urlsafe(48)}" for name in GENERATED}
    if not path.exists():
        text = example.read_text()
        for name, line in lines.items():
            text = re.sub(rf"^{name}=$", line, text, flags=re.MULTILINE)
        path.touch(mode=0o600)
        path.write_text(text)
        return "wrote .env, with secrets of its own, from .env.example"
    # One that is there and empty is so on purpose: natively it means one of `.run/`.
    missing = [name for name in GENERATED if name not in _read(path)]
    if not missing:
        return ""
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in ("", *(lines[name] for name in missing)))
    return f"added to .env, made up: {', '.join(missing)}"
