"""Which port each process of a stack listens on."""

import contextlib
import errno
import random
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace

from deploy.console import Progress
from deploy.failure import DeployFailure

# Below the range from which Linux takes the ports of outgoing connections: a
# server that is killed could otherwise find its port taken by somebody's client.
_FREE_RANGE = range(20000, 32000)
_HIGHEST = 65535

# A name without a file: the kernel forgets it with the process that has it, and knows it exactly
# where ports are shared.
_LOCK = "\0products-and-orders-ports"
#: Installing the servers takes minutes.
_LOCK_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The ports of one stack; the defaults are the ones everybody expects."""

    product: int = 3001
    order: int = 3002
    postgres: int = 5432
    redis: int = 6379
    rabbitmq: int = 5672
    rabbitmq_management: int = 15672
    rabbitmq_metrics: int = 15692
    rabbitmq_distribution: int = 25672
    epmd: int = 4369
    products_worker_metrics: int = 9301
    orders_worker_metrics: int = 9302

    @classmethod
    def free(cls) -> "Ports":
        """Pick ports that nobody uses, for a stack that lives beside others."""
        candidates = random.sample(_FREE_RANGE, k=len(_FREE_RANGE))
        names = [field.name for field in fields(cls)]
        free = (port for port in candidates if is_free("127.0.0.1", port))
        return cls(**dict(zip(names, free, strict=False)))

    @classmethod
    def of(cls, settings: Mapping[str, str], *, otherwise: "Ports | None" = None) -> "Ports":
        """Read `PRODUCT_PORT`, `POSTGRES_PORT` and so on; `otherwise` has the ports not named.

        :raises DeployFailure: if one of them is not a port number
        """
        chosen: dict[str, int] = {}
        for field in fields(cls):
            variable = f"{field.name.upper()}_PORT"
            value = settings.get(variable)
            if value is None:
                continue
            if not (value.isdecimal() and 0 < int(value) <= _HIGHEST):
                raise DeployFailure(f"{variable} must be a port number, not {value!r}.")
            chosen[field.name] = int(value)
        return replace(otherwise or cls(), **chosen)

    @classmethod
    def from_json(cls, ports: Mapping[str, int]) -> "Ports":
        """Read what `to_json` returned, perhaps from an earlier version of this list."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: port for name, port in ports.items() if name in names})

    def to_json(self) -> dict[str, int]:
        """Return the ports by name."""
        return asdict(self)

    def moved_to_free(self, name: str, *, taken: set[int]) -> "Ports":
        """Return these ports, with the one named moved up to the next that is free."""
        port: int = getattr(self, name)
        while port in taken or not is_free("127.0.0.1", port):
            port = port + 1 if port < _HIGHEST else _FREE_RANGE.start
        return replace(self, **{name: port})


@contextlib.contextmanager
def alone_with_ports(progress: Progress) -> Iterator[None]:
    """Keep everybody else on this machine, of whatever directory, from choosing ports meanwhile.

    To be held until something listens on what was chosen.

    :raises DeployFailure: if another one does not finish
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    with socket.socket(socket.AF_UNIX) as lock:
        has_waited = False
        while True:
            try:
                lock.bind(_LOCK)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise DeployFailure(
                        f"Another `make up` on this machine does not finish: {error}"
                    ) from error
            if not has_waited:
                progress.note("waiting for another `make up` on this machine to choose its ports")
                has_waited = True
            time.sleep(0.1)
        yield


def require_free(addresses: Mapping[str, str], ports: Ports) -> None:
    """Refuse ports that somebody else has; `addresses` by variables such as `PRODUCT_PORT`.

    :raises DeployFailure: if there are any, with all of them
    """
    numbers = {f"{name.upper()}_PORT": port for name, port in ports.to_json().items()}
    taken = [
        f"{numbers[variable]} ({variable})"
        for variable, address in addresses.items()
        if not is_free(address, numbers[variable])
    ]
    if taken:
        raise DeployFailure(
            f"In use by other programs: {', '.join(taken)}. Stop those programs, or set other "
            "ports in .env."
        )


def is_free(address: str, port: int) -> bool:
    """Tell whether nobody else listens there now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do; otherwise connections that were closed a moment ago count as use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            # Other reasons not to listen there are the server's to name.
            return error.errno != errno.EADDRINUSE
    return True


def answers(address: str, port: int, *, timeout_seconds: float = 1.0) -> bool:
    """Tell whether something accepts connections there."""
    try:
        with socket.create_connection((address, port), timeout=timeout_seconds):
            return True
    except OSError:
        return False


def main() -> int:
    """Look at the ports of the services where there is no `.env`: before anything is installed."""
    try:
        require_free(dict.fromkeys(("PRODUCT_PORT", "ORDER_PORT"), "127.0.0.1"), Ports())
    except DeployFailure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
