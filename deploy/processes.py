"""The processes of the system, as `docker-compose.yml` lists them.

The native way reads the file too, and keeps to it but for the rules of `deploy.native.programs`.
All commands run in the repository root, with the virtual environment on PATH.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from deploy.settings import COMPOSE


@dataclass(frozen=True, kw_only=True)
class Process:
    """One kind of process: how a container runs it, and the only variables it may see.

    Both still refer to settings: `${NAME:-default}`.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    is_one_shot: bool


def _process(name: str, service: Mapping[str, Any]) -> Process:
    command = service["command"]
    return Process(
        name=name,
        command=tuple(shlex.split(command) if isinstance(command, str) else command),
        environment={variable: str(value) for variable, value in service["environment"].items()},
        is_one_shot=service["restart"] == "no",
    )


_OURS = [
    _process(name, service)
    for name, service in yaml.safe_load(COMPOSE)["services"].items()
    if service["image"] == "products-and-orders"
]
#: Run to completion, in any order, before the services start.
ONE_SHOTS = tuple(each for each in _OURS if each.is_one_shot)
#: The web services, then the workers.
SERVICES = tuple(each for each in _OURS if not each.is_one_shot)
