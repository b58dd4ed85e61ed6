"""What supervisord is told about one program, and how a container becomes one.

A process runs natively with the command and the variables that `docker-compose.yml` gives its
container, but for these rules:

* It listens, and is reached, where the installation says, and not by the names of containers.
* A variable that `.env` has under the same name is as it is there. An address is the one for its
  user: of `BROKER_URL: amqp://products:…`, `PRODUCTS_BROKER_URL`, if there is one.
* Its files and its port of metrics are its own: it shares the machine.
* It is confined by the account that it runs as, and by nothing else: no limit of memory or CPU.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy import settings
from deploy.processes import Process

#: Where `.env` says nothing. Who looks at a terminal is no collector of logs, and ports are chosen.
DEFAULTS = {
    **{name: value for name, value in settings.DEFAULTS.items() if not name.endswith("_PORT")},
    "LOG_FORMAT": "text",
}

_LISTENS = re.compile(r"^0\.0\.0\.0:\d+$")
_USER = re.compile(r"^\w+://(\w+):")


def native_command(process: Process, address: str) -> list[str]:
    """Return its command, listening on `address` if it listens at all."""
    return [_LISTENS.sub(address, part) for part in process.command]


def native_environment(
    process: Process, installation: Mapping[str, str], own: Mapping[str, str]
) -> dict[str, str]:
    """Return its variables, from those of the installation and those of its own."""
    found = {}
    for name, value in process.environment.items():
        user = _USER.match(value)
        # `PRODUCTS_RUNTIME_DATABASE_URL` for PRODUCTS_DATABASE_URL of the user `products_runtime`.
        of_user = f"{user[1].upper()}_{'_'.join(name.split('_')[-2:])}" if user else name
        found[name] = (
            own.get(name)
            or installation.get(of_user)
            or installation.get(name)
            or settings.expand(value, installation)
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Program:
    """A process that is started again whenever it ends, and how to tell that it is ready."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    #: True once it does its work; asked again and again, so it must be cheap.
    is_ready: Callable[[], bool]
    address: str = ""
    user: str | None = None
    stop_signal: str = "TERM"
    #: Signal the whole process group, for a program whose children would outlive it.
    stop_as_group: bool = False
    #: Removed before each start by us, because it would speak of the run before.
    stale_files: Sequence[Path] = field(default_factory=tuple)
