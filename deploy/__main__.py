"""`python -m deploy VERB`: run the system in Docker where there is an engine, else natively."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from deploy import compose, settings
from deploy.console import TerminalProgress, table
from deploy.failure import DeployFailure
from deploy.native.stack import Stack

RUN_DIR = settings.ROOT / ".run"

#: What `make env` prints: what a client, a test or the ledger needs to find its way.
ADDRESSES = (
    "PRODUCTS_DATABASE_URL",
    "ORDERS_DATABASE_URL",
    "BROKER_URL",
    "CACHE_URL",
    "PRODUCT_API_URL",
    "ORDER_API_URL",
)


class Mode(Protocol):
    """One way to run the system."""

    def up(self) -> None:
        """Bring up what is not up, and return when it is ready."""

    def down(self) -> None:
        """Stop everything; the data stays."""

    def clean(self) -> None:
        """Stop everything; the data goes."""

    def is_up(self) -> bool:
        """Tell whether everything is ready."""

    def ps(self) -> None:
        """Print every process with its state."""

    def logs(self) -> None:
        """Print what the processes say."""

    def environment(self) -> dict[str, str]:
        """Return settings and addresses, as seen from this machine."""


class Native:
    """Without containers, below `.run`."""

    def __init__(self) -> None:
        self._stack_of_today: Stack | None = None

    @property
    def _stack(self) -> Stack:
        if self._stack_of_today is None:
            self._stack_of_today = Stack(
                RUN_DIR, settings=settings.load(), progress=TerminalProgress()
            )
        return self._stack_of_today

    def up(self) -> None:
        """Bring up what is not up, and return when it is ready."""
        self._stack.up()

    def down(self) -> None:
        """Stop everything; the data stays."""
        if RUN_DIR.exists():
            self._stack.stop()

    def clean(self) -> None:
        """Stop everything; the data goes."""
        if RUN_DIR.exists():
            self._stack.remove()

    def is_up(self) -> bool:
        """Tell whether everything is ready."""
        return RUN_DIR.exists() and self._stack.is_up()

    def ps(self) -> None:
        """Print every process with its state."""
        rows = [("NAME", "STATE", "PID", "UP", "ADDRESS")]
        rows += [
            (
                status.name,
                status.state.lower(),
                str(status.pid or "-"),
                _duration(status.uptime_seconds) if status.pid else "-",
                status.address or "-",
            )
            for status in self._stack.status()
        ]
        print(table(rows))

    def logs(self) -> None:
        """Print the end of every log, and go on with what is added."""
        logs = [
            str(log)
            for status in self._stack.status()
            if (log := self._stack.log_path(status.name)).exists()
        ]
        if not logs:
            raise DeployFailure("There are no logs yet; `make up` brings the system up.")
        follow = ["-F"] if _may_follow() else []
        sys.stdout.flush()
        subprocess.run(["tail", "-n", "100", *follow, *logs], check=False)

    def environment(self) -> dict[str, str]:
        """Return settings and addresses, as seen from this machine."""
        return self._stack.environment


class Docker:
    """In containers, by `docker-compose.yml`."""

    def up(self) -> None:
        """Bring up what is not up, and return when it is ready."""
        compose.up()

    def down(self) -> None:
        """Stop everything; the data stays."""
        compose.run("down", "--remove-orphans")

    def clean(self) -> None:
        """Stop everything; the data goes."""
        compose.run("down", "--remove-orphans", "--volumes")

    def is_up(self) -> bool:
        """Tell whether everything is ready."""
        return compose.is_up()

    def ps(self) -> None:
        """Print every process with its state."""
        compose.run("ps", "--all")

    def logs(self) -> None:
        """Print the end of every log, and go on with what is added."""
        compose.run("logs", "--tail", "100", *(["--follow"] if _may_follow() else []))

    def environment(self) -> dict[str, str]:
        """Return settings and addresses, as seen from this machine."""
        return compose.environment(settings.load())


def choose() -> tuple[Mode, str]:
    """Choose how to run the system, and say why.

    :raises DeployFailure: if `MODE` asks for what is not there, or for what does not exist
    """
    wanted = os.environ.get("MODE", "")
    if wanted not in {"", "native", "docker"}:
        raise DeployFailure(f"MODE is `native` or `docker`, not {wanted!r}.")
    if wanted == "native":
        return Native(), "Natively, because MODE=native."
    reason = compose.why_not()
    if wanted == "docker":
        if reason is not None:
            raise DeployFailure(f"MODE=docker cannot work: {reason}.")
        return Docker(), "In Docker, because MODE=docker."
    if reason is None:
        return Docker(), "In Docker, because a Docker engine answers."
    return Native(), f"Natively on this machine, because {reason}."


def bring_up(mode: Mode, why: str) -> None:
    """Bring the system up, telling what happens.

    :raises DeployFailure: if that cannot be done
    """
    started = time.monotonic()
    progress = TerminalProgress()
    print(why, file=sys.stderr)
    if settings.write_env_file():
        progress.note("Wrote .env from .env.example, with secrets of its own.")
    mode.up()
    print(f"Everything is up, after {time.monotonic() - started:.1f} s.\n", file=sys.stderr)


def up(_: argparse.Namespace) -> int:
    """Bring the whole system up, in the background, and wait until it is ready."""
    mode, why = choose()
    bring_up(mode, why)
    print(_summary(mode.environment()))
    return 0


def down(_: argparse.Namespace) -> int:
    """Stop everything; the data stays."""
    mode, _why = choose()
    mode.down()
    print("Everything is down. The data is kept; `make clean` throws it away.", file=sys.stderr)
    return 0


def ps(_: argparse.Namespace) -> int:
    """Show every process: its state, process id, uptime and address."""
    mode, _why = choose()
    mode.ps()
    return 0


def logs(_: argparse.Namespace) -> int:
    """Show what the processes say, and go on showing it (FOLLOW=0: only the end)."""
    mode, _why = choose()
    mode.logs()
    return 0


def env(_: argparse.Namespace) -> int:
    """Print the addresses in use as shell assignments."""
    mode, _why = choose()
    environment = mode.environment()
    for name in ADDRESSES:
        print(f"{name}={shlex.quote(environment[name])}")
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Run a command with the addresses in its environment, after bringing the system up."""
    mode, why = choose()
    if not mode.is_up():
        bring_up(mode, why)
    environment = mode.environment()
    addresses = {name: environment[name] for name in (*ADDRESSES, "RABBITMQ_MANAGEMENT_URL")}
    command: list[str] = arguments.command
    try:
        # Becomes the command: its exit code and its signals are its own.
        os.execvpe(command[0], command, _with_our_programs({**os.environ, **addresses}))
    except OSError as error:
        raise DeployFailure(f"{command[0]} cannot be run: {error.strerror}.") from error


def clean(_: argparse.Namespace) -> int:
    """Stop everything and throw its data away."""
    mode, _why = choose()
    mode.clean()
    print("Everything is down, and its data is gone. .env is kept.", file=sys.stderr)
    return 0


VERBS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "up": up,
    "down": down,
    "ps": ps,
    "logs": logs,
    "env": env,
    "run": run,
    "clean": clean,
}


def main() -> int:
    """Do what the command line asks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, function in VERBS.items():
        verb = verbs.add_parser(name, help=function.__doc__)
        if name == "run":
            verb.add_argument("command", nargs="+", help="what to run, after `--`")
    arguments = parser.parse_args()
    try:
        return VERBS[arguments.verb](arguments)
    except DeployFailure as failure:
        print(f"\n{failure}", file=sys.stderr)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(f"\n{error.strerror or error}{place}.", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nInterrupted; `make down` stops what was started.", file=sys.stderr)
        return 130
    return 1


def _summary(environment: Mapping[str, str]) -> str:
    products = _origin(environment["PRODUCT_API_URL"])
    orders = _origin(environment["ORDER_API_URL"])
    admin = f"{environment['ADMIN_USERNAME']} / {environment['ADMIN_PASSWORD']}"
    lines = [
        f"  products   {products}/products   docs {products}/docs   admin {products}/admin/",
        f"  orders     {orders}/orders     docs {orders}/docs   admin {orders}/admin/",
        f"  admin      {admin}",
    ]
    console = urlsplit(environment["RABBITMQ_MANAGEMENT_URL"])
    if "BROKER_URL" not in settings.load():
        lines.append(
            f"  RabbitMQ   http://localhost:{console.port}   {console.username} / {console.password}"
        )
    lines += [
        "",
        "  make demo   places orders and shows what becomes of them",
        "  make logs   what the processes say       make ps     what runs",
        "  make down   stops everything             make help   everything else",
    ]
    return "\n".join(lines)


def _origin(url: str) -> str:
    return f"http://localhost:{urlsplit(url).port}"


def _with_our_programs(environment: dict[str, str]) -> dict[str, str]:
    """Put the virtual environment first on PATH."""
    ours = str(Path(sys.executable).parent)
    return {**environment, "PATH": f"{ours}:{environment.get('PATH', os.defpath)}"}


def _may_follow() -> bool:
    return os.environ.get("FOLLOW", "1") != "0" and sys.stdout.isatty()


def _duration(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


if __name__ == "__main__":
    sys.exit(main())
