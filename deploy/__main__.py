"""`python -m deploy VERB`: what `make up` and its siblings call."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from environ import Env

from deploy.addresses import ADDRESSES
from deploy.by_hand import write_addresses
from deploy.choice import Engine, choose
from deploy.console import Progress, TerminalProgress
from deploy.failure import DeployFailure
from deploy.settings import DEFAULTS, ROOT, load, write_env_file

#: What prints what there is, and changes nothing.
_LOOKS = {"env", "ps", "logs"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, help_text in {
        "up": "bring the system up and wait until it is ready",
        "down": "stop it; the data stays",
        "ps": "show what runs",
        "env": "print the addresses in use as shell assignments",
        "clean": "stop it and throw its data away, after asking (unless FORCE=1)",
    }.items():
        verbs.add_parser(verb, help=help_text)
    logs = verbs.add_parser("logs", help="show what the processes say")
    logs.add_argument("names", nargs="*", help="only of these processes")
    run = verbs.add_parser("run", help="run a command that is given the addresses in use")
    run.add_argument("--as-is", action="store_true", help="do not bring the system up first")
    run.add_argument("command", nargs=argparse.REMAINDER)
    manage = verbs.add_parser("manage", help="run a command of Django's")
    manage.add_argument("service", choices=("products", "orders"))
    manage.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except DeployFailure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except OSError as error:
        if isinstance(error, BrokenPipeError) and options.verb in _LOOKS:
            # Who reads has enough, as `head` has. Nor is the rest to be written when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        # A full disk, a directory of somebody else's: what Linux says is the clear sentence.
        print(f"\n{error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        return 130


def _run(options: argparse.Namespace) -> int:
    quiet = options.verb in {*_LOOKS, "run", "manage"}
    progress = Progress() if quiet else TerminalProgress()
    looks_only = options.verb == "run" and options.as_is
    if options.verb in {"up", "run", "manage"} and not looks_only and (written := write_env_file()):
        progress.note(written)
    engine = choose(load(), progress)
    match options.verb:
        case "up":
            _up(engine)
        case "down":
            engine.down()
        case "clean":
            _require_consent()
            engine.clean()
        case "ps" | "env" if not engine.runs():
            # Its ports may be somebody else's by now.
            raise DeployFailure("Nothing runs: `make up` brings the system up.")
        case "ps":
            engine.ps()
        case "env":
            found = engine.environment
            print("\n".join(f"{name}={shlex.quote(found[name])}" for name in ADDRESSES))
        case "logs":
            follow = sys.stdout.isatty() and os.environ.get("FOLLOW") != "0"
            engine.logs(follow=follow, names=options.names)
        case "run":
            _exec(engine, options.command, as_is=options.as_is)
        case "manage":
            _bring_up(engine)
            # It finds its settings as it does when somebody calls it by hand.
            program = [sys.executable, str(ROOT / f"{options.service}_project" / "manage.py")]
            os.execv(program[0], [*program, *options.command])  # noqa: S606 - that is what it is for
    # While it can still be heard of that nobody reads.
    sys.stdout.flush()
    return 0


def _up(engine: Engine) -> None:
    engine.up()
    write_addresses(engine.environment)
    products, orders = (
        engine.environment[name].rsplit("/", 1)[0] for name in ("PRODUCT_API_URL", "ORDER_API_URL")
    )
    settings = {**DEFAULTS, **load()}
    account = f"{settings['ADMIN_USERNAME']} / {settings['ADMIN_PASSWORD']}"
    print(
        f"""
  Product-Service   {products}
          admin     {products}/admin/   {account}
  Order-Service     {orders}
          admin     {orders}/admin/   {account}{_console(engine.environment)}

  Next:  make demo     a product, an order, and what becomes of both
         make logs     what the processes say
         make down     stop it all; the data stays{_open_to_everybody(settings)}"""
    )


def _require_consent() -> None:
    """Ask whether the data may go, unless `FORCE=1` says so.

    :raises DeployFailure: if it may not, or nobody is there to be asked
    """
    if os.environ.get("FORCE") == "1":
        return
    question = "This throws away the shop's data: all products, orders and dead letters."
    if not sys.stdin.isatty():
        raise DeployFailure(f"{question} Nothing was done; `make clean FORCE=1` does it unasked.")
    if input(f"{question} Go on? [y/N] ").strip().lower() not in {"y", "yes"}:
        raise DeployFailure("Nothing was thrown away.")


def _open_to_everybody(settings: Mapping[str, str]) -> str:
    """Return a warning where others than this machine's users need no API key."""
    address = settings["BIND_ADDRESS"].replace("localhost", "127.0.0.1")
    published = settings.get("PRODUCT_PUBLIC_URL") or settings.get("ORDER_PUBLIC_URL")
    is_local = ip_address(address).is_loopback and not published
    if is_local or settings["REQUIRE_API_KEY"].lower() in Env.BOOLEAN_TRUE_STRINGS:
        return ""
    return """

  Everybody who can reach the services can read and change all products and orders by the API,
  until REQUIRE_API_KEY=true in .env asks for API keys."""


def _console(environment: Mapping[str, str]) -> str:
    """Return where RabbitMQ's console is, and who may log in there; nothing if it is not ours."""
    url = urlsplit(environment["RABBITMQ_MANAGEMENT_URL"])
    if urlsplit(environment["BROKER_URL"]).password != url.password:
        return ""
    address = f"http://{url.hostname}:{url.port}"
    return f"\n  RabbitMQ          {address}   {url.username}, password: BROKER_URL of `make env`"


def _exec(engine: Engine, command: Sequence[str], *, as_is: bool) -> None:
    command = [part for part in command if part != "--"]
    if not command:
        raise DeployFailure("`run` needs a command.")
    if not as_is:
        _bring_up(engine)
    addresses = {name: engine.environment[name] for name in ADDRESSES}
    os.execvpe(command[0], command, {**os.environ, **addresses})  # noqa: S606 - that is what it is for


def _bring_up(engine: Engine) -> None:
    """Bring the system up unless it is: no target needs another to have been run before it."""
    if not engine.is_up():
        print("The system is not up yet: bringing it up first.", file=sys.stderr)
        choose(load(), TerminalProgress()).up()
        print(file=sys.stderr)
    write_addresses(engine.environment)


if __name__ == "__main__":
    sys.exit(main())
