"""Where a process that somebody starts by hand finds its settings: `manage.py`, `celery`, an IDE.

One that is given a `SECRET_KEY`, as all are that `make up`, Compose and the tests start, is given
everything that it may see, and reads no file.
"""

import os
import sys
from pathlib import Path
from typing import ClassVar

import environ

_REPOSITORY = Path(__file__).resolve().parent.parent

# What changes tables, and so is done by the role that owns them (docs/decisions/0021).
_OWNERS_COMMANDS = {"migrate", "prepare"}


class _Files(environ.Env):  # type: ignore[misc]  # it publishes no types
    ENVIRON: ClassVar[dict[str, str]] = {}


def read_files(service: str) -> None:
    """Complete the environment by the addresses in use, as `make up` wrote them, and by `.env`.

    What the environment has goes first; what is empty in a file is not set.
    """
    if "SECRET_KEY" in os.environ:
        return
    role = "-owner" if _OWNERS_COMMANDS.intersection(sys.argv) else ""
    for file in (f".run/{service}{role}.env", ".env"):
        _Files.read_env(_REPOSITORY / file)
    for name, value in _Files.ENVIRON.items():
        if value:
            os.environ.setdefault(name, value)
