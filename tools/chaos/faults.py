"""What can go wrong, one entry each: a name, the edge of the system that it cuts, and how.

A fault is in effect while its context is open, and healed when that is left. Nothing here waits for
the system to recover: that is measured.
"""

import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import amqp
import psycopg
import redis
import requests

from deploy.failure import DeployFailure
from deploy.native.stack import Stack
from deploy.native.supervision import send
from servicekit.messaging.connections import close_in_order, connect

WEB = ("product-service", "order-service")
WORKERS = ("products-worker", "orders-worker")
SERVERS = ("postgres", "redis", "rabbitmq")
QUEUES = ("orders.persist", "product_order_queue", "order_stock_queue")


class Scene:
    """The system that a fault happens to, and how it is reached past its services."""

    def __init__(self, stack: Stack, chance: random.Random) -> None:
        self.stack = stack
        self.chance = chance
        self.poison = 0
        """How many messages were sent that have to be parked."""

    def sql(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser."""
        address = self.stack.superuser_database_url
        with psycopg.connect(address, dbname=database, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def redis(self, *command: str) -> None:
        """Run a command of Redis."""
        with redis.Redis.from_url(self.stack.environment["CACHE_URL"], socket_timeout=5) as cache:
            cache.execute_command(*command)

    def broker(self, method: str, path: str, body: object = None) -> Any:
        """Ask the broker's management API."""
        url = f"{self.stack.environment['RABBITMQ_MANAGEMENT_URL']}/api/{path}"
        answer = requests.request(method, url, json=body, timeout=30)
        if answer.status_code != requests.codes.not_found:
            answer.raise_for_status()
        return answer.json() if answer.content else None

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """Return a channel of a connection to the broker."""
        connection = connect(self.stack.environment["BROKER_URL"], timeout_seconds=10)
        channel: Any = connection.default_channel
        channel.auto_decode = False
        yield channel
        close_in_order(connection)


Act = Callable[[Scene], AbstractContextManager[object]]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault."""

    name: str
    #: What is cut: `web → broker`.
    edge: str
    act: Act
    #: Whether orders have to be accepted all the time.
    accepts: bool = True
    #: Services that cannot answer meanwhile, because they are what fails.
    silent: tuple[str, ...] = ()
    #: It throws away what a broker or a cache keeps, so that no other one may happen beside it.
    empties: bool = False


# Ways to fail


def again_and_again(action: Callable[[Scene], object], *, pause: tuple[float, float]) -> Act:
    """Do something at once and then after every pause of so many seconds."""

    @contextmanager
    def act(scene: Scene) -> Iterator[None]:
        enough = threading.Event()

        def go_on() -> None:
            while True:
                action(scene)
                if enough.wait(scene.chance.uniform(*pause)):
                    return

        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(go_on)
            try:
                yield
            finally:
                enough.set()
            running.result()

    return act


def killed(*names: str, number: int = signal.SIGKILL) -> Act:
    """Kill processes of ours, all at the same moment, every one to three seconds."""

    def kill(scene: Scene) -> None:
        pids = scene.stack.pids
        for pid in [pids[name] for name in names if name in pids]:
            send(pid, number)

    return again_and_again(kill, pause=(1.0, 3.0))


def child_killed(name: str) -> Act:
    """Kill a child of a process, such as one of gunicorn's workers, every one to three seconds."""

    def kill(scene: Scene) -> None:
        with suppress(DeployFailure, OSError, IndexError):  # it is between two lives just now
            send(scene.chance.choice(scene.stack.children(name)), signal.SIGKILL)

    return again_and_again(kill, pause=(1.0, 3.0))


def absent(*names: str) -> Act:
    """Stop processes in an orderly way, and start them again."""

    @contextmanager
    def act(scene: Scene) -> Iterator[None]:
        for name in names:
            scene.stack.stop_process(name)
        yield
        for name in names:
            scene.stack.start_process(name, wait=False)

    return act


def frozen(name: str) -> Act:
    """Stop a process and its descendants where they are, and let them go on later."""

    @contextmanager
    def act(scene: Scene) -> Iterator[None]:
        stopped: list[int] = []
        _freeze(scene.stack.pid(name), stopped)
        try:
            yield
        finally:
            for pid in reversed(stopped):
                send(pid, signal.SIGCONT)

    return act


def _freeze(pid: int, stopped: list[int]) -> None:
    # Parents first: what is stopped makes no more children.
    send(pid, signal.SIGSTOP)
    stopped.append(pid)
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            _freeze(int(child), stopped)


@contextmanager
def rolling_restart(scene: Scene) -> Iterator[None]:
    """Restart every process, one after the other, in an orderly way."""
    for name in (*SERVERS, *WEB, *WORKERS):
        scene.stack.restart(name)
    yield


@contextmanager
def power_cut(scene: Scene) -> Iterator[None]:
    """Kill every process at once, supervisord too, and bring all of it up again."""
    scene.stack.kill_all()
    yield
    scene.stack.up()


@contextmanager
def any_order(scene: Scene) -> Iterator[None]:
    """Stop everything, and start it in an order that makes no sense."""
    names = [*SERVERS, *WEB, *WORKERS]
    for name in names:
        scene.stack.stop_process(name)
    scene.chance.shuffle(names)
    yield
    for name in names:
        scene.stack.start_process(name, wait=False)
        time.sleep(0.5)


def with_failpoint(process: str, *failpoints: str) -> Act:
    """Kill a process at its worst lines, again and again."""

    @contextmanager
    def act(scene: Scene) -> Iterator[None]:
        setting = ",".join(f"{name}:kill" for name in failpoints)
        scene.stack.set_environment(process, FAILPOINTS=setting)
        try:
            yield
        finally:
            scene.stack.set_environment(process, FAILPOINTS=None)

    return act


def done_and_undone(
    do: Callable[[Scene], object], undo: Callable[[Scene], object] = lambda _: None
) -> Act:
    """Do something, and undo it later."""

    @contextmanager
    def act(scene: Scene) -> Iterator[None]:
        do(scene)
        try:
            yield
        finally:
            undo(scene)

    return act


def rabbitmqctl(do: tuple[str, ...], undo: tuple[str, ...]) -> Act:
    """Run two commands of `rabbitmqctl`."""
    return done_and_undone(
        lambda scene: scene.stack.rabbitmqctl(*do), lambda scene: scene.stack.rabbitmqctl(*undo)
    )


def _close_connections(scene: Scene) -> None:
    for each in scene.broker("GET", "connections"):
        scene.broker("DELETE", f"connections/{quote(each['name'], safe='')}")


def refusing(queue: str) -> Act:
    """Have the broker refuse whatever is sent to a queue."""
    policy = {
        "pattern": f"^{queue}$",
        "apply-to": "queues",
        "priority": 10,
        "definition": {
            "max-length": 0,
            "overflow": "reject-publish",
            "dead-letter-exchange": "",
            "dead-letter-routing-key": f"{queue}.dead",
        },
    }
    return done_and_undone(
        lambda scene: scene.broker("PUT", "policies/%2F/chaos", policy),
        lambda scene: scene.broker("DELETE", "policies/%2F/chaos"),
    )


def deleted(path: str) -> Act:
    """Delete something of the broker's, every one to three seconds."""
    return again_and_again(lambda scene: scene.broker("DELETE", path), pause=(1.0, 3.0))


def _terminate(scene: Scene) -> None:
    scene.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE usename IN ('orders', 'products')"
    )


def altered(change: str, back: str) -> Act:
    """Alter both databases, and make the services connect anew."""

    def alter(scene: Scene, how: str) -> None:
        scene.sql(*(f"ALTER DATABASE {name} {how}" for name in ("orders", "products")))
        _terminate(scene)

    return done_and_undone(lambda scene: alter(scene, change), lambda scene: alter(scene, back))


def locked(database: str, statement: str) -> Act:
    """Hold locks in another session."""

    @contextmanager
    def act(scene: Scene) -> Iterator[None]:
        address = scene.stack.superuser_database_url
        with psycopg.connect(address, dbname=database) as connection:
            connection.execute(statement.encode())
            yield

    return act


def replayed(exchange: str, routing_key: str) -> Act:
    """Tap an exchange, and publish all of it again afterwards: three times, shuffled."""

    @contextmanager
    def act(scene: Scene) -> Iterator[None]:
        with scene.channel() as channel:
            queue = channel.queue_declare(exclusive=True, auto_delete=True).queue
            channel.queue_bind(queue, exchange, routing_key)
            yield
            messages = []
            while message := channel.basic_get(queue, no_ack=True):
                messages.append(message)
            channel.queue_unbind(queue, exchange, routing_key)
            messages *= 3
            scene.chance.shuffle(messages)
            for message in messages:
                again = amqp.Message(message.body, **message.properties)
                channel.basic_publish(again, exchange, routing_key)

    return act


_NONSENSE = (b"", b"{", b"null", b"[]", b"7", b"\xff\xfe", b'{"orderId": {}}', b"[" * 100_000)
_BAD_QUANTITIES = (-5, 0, "5", 2**63, True, None, 1.5)


def poisoned(queue: str, *more: bytes, headers: dict[str, str] | None = None) -> Act:
    """Send what cannot be applied between the good messages, and a thousand of it in a row."""

    def send_some(scene: Scene, times: int) -> None:
        bodies = [*_NONSENSE, *more]
        with scene.channel() as channel:
            for number in range(times):
                message = amqp.Message(bodies[number % len(bodies)], application_headers=headers)
                channel.basic_publish(message, "", queue)
                scene.poison += 1

    @contextmanager
    def act(scene: Scene) -> Iterator[None]:
        send_some(scene, 1000)
        with again_and_again(lambda scene: send_some(scene, 7), pause=(0.1, 0.5))(scene):
            yield

    return act


def both(first: Fault, second: Fault) -> Fault:
    """Return the fault that two faults are at the same time."""

    @contextmanager
    def act(scene: Scene) -> Iterator[None]:
        with ExitStack() as acts:
            acts.enter_context(first.act(scene))
            acts.enter_context(second.act(scene))
            yield

    return Fault(
        name=f"{first.name} + {second.name}",
        edge=f"{first.edge}; {second.edge}",
        act=act,
        accepts=False,
        silent=(*first.silent, *second.silent),
    )


def _bad_orders() -> list[bytes]:
    fields = {"orderId": "no-order", "productId": "0" * 32, "totalPrice": 1}
    return [json.dumps({**fields, "quantity": each}).encode() for each in _BAD_QUANTITIES]


# The list


FAULTS = (
    Fault(name="postgres-killed", edge="all → PostgreSQL", act=killed("postgres")),
    Fault(name="order-service-killed", edge="client → web", act=killed("order-service"),
          accepts=False),
    Fault(name="orders-worker-killed", edge="broker → orders worker", act=killed("orders-worker")),
)  # fmt: skip
