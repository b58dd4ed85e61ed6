"""What can go wrong, one entry each: a name, the edge of the system that it cuts, and how.

A fault is in effect while its context is open, and healed when that is left. Nothing here waits for
the system to recover: that is measured.
"""

import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from typing import Any
from uuid import UUID

import amqp
import psutil
import psycopg
import redis
import requests

from deploy.failure import DeployFailure
from deploy.native.stack import Stack
from deploy.native.supervision import send
from servicekit.messaging.connections import close_in_order, connect
from tools.chaos.proxy import Proxy

WEB = ("product-service", "order-service")
WORKERS = ("products-worker", "orders-worker")
SERVERS = ("postgres", "redis", "rabbitmq")

Link = tuple[str, str]
"""A process, and the variable that names the server which it reaches by this link."""


class Scene:
    """The system that a fault happens to, and how it is reached past its services."""

    def __init__(self, stack: Stack, chance: random.Random) -> None:
        self.stack = stack
        self.chance = chance
        self.proxies: dict[Link, Proxy] = {}
        self.poison = 0
        """How many messages were sent that have to become dead letters."""

    @contextmanager
    def through_proxies(self, links: Iterable[Link]) -> Iterator[None]:
        """Have processes reach their servers through proxies."""
        with ExitStack() as until_later:
            for process, variable in links:
                proxy = until_later.enter_context(Proxy(self.stack.environment[variable]))
                self.proxies[process, variable] = proxy
                until_later.callback(self.stack.set_environment, process, **{variable: None})
                self.stack.set_environment(process, **{variable: proxy.url})
            self.stack.wait_ready()
            yield

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
    #: Which processes it happens to.
    parts: tuple[str, ...] = ()
    #: Whether orders have to be accepted all the time.
    accepts: bool = True
    #: Services that cannot answer meanwhile, because they are what fails.
    silent: tuple[str, ...] = ()
    #: It throws away what a broker or a cache keeps, so that no other one may happen beside it.
    empties: bool = False
    #: What has to go through a proxy.
    links: tuple[Link, ...] = ()

    @property
    def forgets_attempts(self) -> bool:
        """Whether Redis may forget, or never hear of, an attempt to order under a key.

        If PostgreSQL does not answer in time either, the next attempt is answered as if it were the
        first (docs/operating.md).
        """
        return "redis" in self.parts or any(name == "CACHE_URL" for _, name in self.links)


# Ways to fail


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
        with suppress(DeployFailure, psutil.Error, OSError, IndexError):  # between two lives
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
    return done_and_undone(
        lambda scene: _signal_tree(scene.stack.pid(name), signal.SIGSTOP),
        lambda scene: _signal_tree(scene.stack.pid(name), signal.SIGCONT),
    )


def _signal_tree(pid: int, number: int) -> None:
    # Parents first: what is stopped makes no more children.
    send(pid, number)
    with suppress(psutil.Error):  # it has ended
        for child in psutil.Process(pid).children():
            _signal_tree(child.pid, number)


def shut_redis_down(scene: Scene) -> None:
    """Have Redis end without saving anything."""
    with suppress(redis.RedisError):  # it is between two lives, or this was its last answer
        scene.redis("SHUTDOWN", "NOSAVE")


@contextmanager
def rolling_restart(scene: Scene) -> Iterator[None]:
    """Restart every process, one after the other, in an orderly way."""
    for name in (*SERVERS, *WEB, *WORKERS):
        scene.stack.restart(name)
    yield


power_cut = done_and_undone(lambda scene: scene.stack.kill_all(), lambda scene: scene.stack.up())
"""Kill every process at once, supervisord too, and bring all of it up again."""


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


def dying_at(process: str, failpoint: str) -> Act:
    """Kill a process at one of its worst lines, again and again."""
    return done_and_undone(
        lambda scene: scene.stack.set_environment(process, FAILPOINTS=f"{failpoint}:kill"),
        lambda scene: scene.stack.set_environment(process, FAILPOINTS=None),
    )


def rabbitmqctl(do: tuple[str, ...], undo: tuple[str, ...]) -> Act:
    """Run two commands of `rabbitmqctl`."""
    return done_and_undone(
        lambda scene: scene.stack.rabbitmqctl(*do), lambda scene: scene.stack.rabbitmqctl(*undo)
    )


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


def over(link: Link, harm: Callable[[Proxy], object]) -> Act:
    """Harm a link."""
    return done_and_undone(
        lambda scene: harm(scene.proxies[link]), lambda scene: scene.proxies[link].heal()
    )


def cut_over(link: Link) -> Act:
    """Cut all connections of a link, several times a second."""
    return again_and_again(lambda scene: scene.proxies[link].cut(), pause=(0.1, 0.6))


_NONSENSE = (b"", b"{", b"null", b"[]", b"7", b"\xff\xfe", b'{"orderId": {}}', b"[" * 100_000)
_QUANTITIES = ("-5", "0", '"5"', "5.5", "9223372036854775808", "true", "null", "NaN")
_ORDER = '{"orderId": "x", "productId": "%s", "quantity": %s, "totalPrice": 1, "createdAt": "%s"}'
_BAD_ORDERS = [
    (_ORDER % (UUID(int=1), quantity, "2026-01-01T00:00:00.000Z")).encode()
    for quantity in _QUANTITIES
]
_BAD_DECISIONS = (b'{"decisions": 1}', b'{"decisions": [1]}', b'{"decisions": [{"orderId": "x"}]}')
_BAD_TASKS = (
    b"[[],{},{}]", b"[[1],{},{}]", b'[[],{"orders":1},{}]', b'[[],{"orders":[{"id":"x"}]},{}]',
)  # fmt: skip


def poisoned(queue: str, bodies: Sequence[bytes], **properties: Any) -> Act:
    """Send what cannot be applied: a thousand in a row, then some between the good messages."""

    def send_some(scene: Scene, times: int) -> None:
        with scene.channel() as channel:
            for body in itertools.islice(itertools.cycle([*_NONSENSE, *bodies]), times):
                channel.basic_publish(amqp.Message(body, **properties), "", queue)
                scene.poison += 1

    @contextmanager
    def act(scene: Scene) -> Iterator[None]:
        send_some(scene, 1000)
        with again_and_again(lambda scene: send_some(scene, 16), pause=(0.1, 0.5))(scene):
            yield

    return act


def both(first: Fault, second: Fault) -> Fault:
    """Return the fault that two faults are at the same time."""

    @contextmanager
    def act(scene: Scene) -> Iterator[None]:
        with first.act(scene), second.act(scene):
            yield

    return Fault(
        name=f"{first.name}+{second.name}",
        edge=f"{first.edge}; {second.edge}",
        act=act,
        parts=(*first.parts, *second.parts),
        accepts=False,
        silent=(*first.silent, *second.silent),
        links=(*first.links, *second.links),
    )


def may_meet(first: Fault, second: Fault) -> bool:
    """Tell whether nothing may be lost when both happen at the same time.

    An accepted order is in the broker and in Redis until it is stored. So nothing else may happen
    beside what throws away the contents of one of them.
    """
    involved = [
        {*fault.parts, *(process for process, _ in fault.links)} for fault in (first, second)
    ]
    return not (first.empties or second.empties or involved[0] & involved[1])


# The list

_CLIENTS = {
    "postgres": "all → PostgreSQL",
    "redis": "all → Redis",
    "rabbitmq": "all → RabbitMQ",
    "product-service": "order service → product service",
    "order-service": "client → order service",
    "products-worker": "RabbitMQ → products worker",
    "orders-worker": "RabbitMQ → orders worker",
}


def _of_process(name: str) -> Iterator[Fault]:
    for what, act in (
        ("killed", killed(name)),
        ("frozen", frozen(name)),
        ("absent", absent(name)),
    ):
        yield Fault(
            name=f"{name}-{what}",
            edge=_CLIENTS[name],
            act=act,
            parts=(name,),
            accepts=name != "order-service",
            silent=(name,) if name in WEB else (),
            empties=name == "redis" and what != "frozen",
        )


_TITLES = {
    "BROKER_URL": "RabbitMQ",
    "CACHE_URL": "Redis",
    "ORDERS_DATABASE_URL": "PostgreSQL",
    "PRODUCTS_DATABASE_URL": "PostgreSQL",
    "PRODUCT_API_URL": "product service",
}
_LINKS = (
    ("order-service", "BROKER_URL"),
    ("order-service", "CACHE_URL"),
    ("order-service", "ORDERS_DATABASE_URL"),
    ("order-service", "PRODUCT_API_URL"),
    ("orders-worker", "BROKER_URL"),
    ("orders-worker", "CACHE_URL"),
    ("orders-worker", "ORDERS_DATABASE_URL"),
    ("products-worker", "BROKER_URL"),
    ("products-worker", "CACHE_URL"),
    ("products-worker", "PRODUCTS_DATABASE_URL"),
    ("product-service", "CACHE_URL"),
    ("product-service", "PRODUCTS_DATABASE_URL"),
)


def _of_link(link: Link) -> Iterator[Fault]:
    process, title = link[0], _TITLES[link[1]]
    for what, act in (
        ("black-hole", over(link, Proxy.blackhole)),
        ("slow", over(link, lambda proxy: proxy.delay(0.2))),
        ("cut", cut_over(link)),
    ):
        yield Fault(
            name=f"{process}-{title.lower().replace(' ', '-')}-{what}",
            edge=f"{process.replace('-', ' ')} → {title}",
            act=act,
            links=(link,),
        )


_WORST_LINES = (
    ("order-service", "orders.intake.after_confirm"),
    ("orders-worker", "orders.place.before_commit"),
    ("orders-worker", "orders.place.after_commit"),
    ("orders-worker", "orders.settle.before_commit"),
    ("orders-worker", "orders.settle.after_commit"),
    ("orders-worker", "consumer.after_answers"),
    ("orders-worker", "outbox.after_confirm"),
    ("products-worker", "products.reserve.before_commit"),
    ("products-worker", "products.reserve.after_commit"),
    ("products-worker", "products.release.before_commit"),
    ("products-worker", "products.release.after_commit"),
    ("products-worker", "consumer.after_answers"),
)
_QUEUES = {
    "orders.persist": "order service → RabbitMQ → orders worker",
    "product_order_queue": "orders worker → RabbitMQ → products worker",
    "order_stock_queue": "products worker → RabbitMQ → orders worker",
    "product_cancellation_queue": "order service → RabbitMQ → products worker",
}


def _of_queue(name: str, edge: str) -> Iterator[Fault]:
    place = f"queues/%2F/{name}"
    for what, act in (
        ("refusing", refusing(name)),
        ("deleted", deleted(place)),
        ("purged", deleted(f"{place}/contents")),
    ):
        yield Fault(
            name=f"{name}-{what}",
            edge=edge,
            act=act,
            parts=("rabbitmq",),
            empties=what != "refusing",
        )


def _of_server(server: str, faults: Mapping[str, Act], *, empties: bool = False) -> Iterator[Fault]:
    for name, act in faults.items():
        yield Fault(
            name=f"{server}-{name}",
            edge=_CLIENTS[server],
            act=act,
            parts=(server,),
            empties=empties,
        )


_EVERYTHING = (*SERVERS, *WEB, *WORKERS)

FAULTS = (
    *(fault for name in _EVERYTHING for fault in _of_process(name)),
    Fault(name="web-process-killed", edge="client → order service", act=child_killed(WEB[1]),
          parts=WEB[1:], accepts=False, silent=WEB[1:]),
    Fault(name="workers-absent", edge="RabbitMQ → workers", act=absent(*WORKERS), parts=WORKERS),
    *(
        Fault(name=f"all-{name}", edge="all", act=act, parts=_EVERYTHING, accepts=False,
              silent=WEB, empties=True)
        for name, act in (
            ("restarted", rolling_restart), ("killed", killed(*_EVERYTHING)),
            ("power-cut", power_cut), ("started-in-any-order", any_order),
        )
    ),
    *(
        Fault(name=f"{process}-dies-{failpoint}", edge=_CLIENTS[process], parts=(process,),
              act=dying_at(process, failpoint), accepts=process != "order-service",
              silent=(process,) if process in WEB else ())
        for process, failpoint in _WORST_LINES
    ),
    *_of_server("rabbitmq", {
        "connections-closed": again_and_again(
            lambda scene: scene.stack.rabbitmqctl("close_all_connections", "chaos"),
            pause=(0.2, 1.0),
        ),
        "stop-app": rabbitmqctl(("stop_app",), ("start_app",)),
        "memory-alarm": rabbitmqctl(
            ("set_vm_memory_high_watermark", "0"), ("set_vm_memory_high_watermark", "0.4")
        ),
        "disk-alarm": rabbitmqctl(
            ("set_disk_free_limit", "1000000GB"), ("set_disk_free_limit", "256MB")
        ),
    }),
    *(fault for queue, edge in _QUEUES.items() for fault in _of_queue(queue, edge)),
    *_of_server("rabbitmq", {
        f"{name}.exchange-deleted": deleted(f"exchanges/%2F/{name}.exchange")
        for name in ("order", "product")
    }, empties=True),
    *_of_server("postgres", {
        "sessions-terminated": again_and_again(_terminate, pause=(0.1, 1.0)),
        "stop-immediate": killed("postgres", number=signal.SIGQUIT),
        "read-only": altered(
            "SET default_transaction_read_only = on", "RESET default_transaction_read_only"
        ),
        "one-connection": altered("CONNECTION LIMIT 1", "CONNECTION LIMIT -1"),
        "product-rows-locked": locked("products", "SELECT FROM product FOR UPDATE"),
        "order-table-locked": locked("orders", 'LOCK TABLE "order" IN EXCLUSIVE MODE'),
    }),
    *_of_server("redis", {
        "clients-killed": again_and_again(
            lambda scene: scene.redis("CLIENT", "KILL", "TYPE", "normal"), pause=(0.05, 0.5)
        ),
    }),
    *_of_server("redis", {
        "flushed": again_and_again(lambda scene: scene.redis("FLUSHALL"), pause=(0.2, 1.0)),
        "shut-down": again_and_again(shut_redis_down, pause=(1.0, 3.0)),
    }, empties=True),
    Fault(name="order.created-replayed", edge=_QUEUES["product_order_queue"],
          act=replayed("order.exchange", "order.created")),
    Fault(name="order.cancelled-replayed", edge=_QUEUES["product_cancellation_queue"],
          act=replayed("order.exchange", "order.cancelled")),
    Fault(name="stock.decided-replayed", edge=_QUEUES["order_stock_queue"],
          act=replayed("product.exchange", "stock.decided")),
    Fault(name="orders.persist-poisoned", edge=_QUEUES["orders.persist"],
          act=poisoned("orders.persist", _BAD_TASKS, application_headers={
              "task": "orders.persist_orders", "id": "x", "lang": "py"})),
    Fault(name="product_order_queue-poisoned", edge=_QUEUES["product_order_queue"],
          act=poisoned("product_order_queue", _BAD_ORDERS)),
    Fault(name="order_stock_queue-poisoned", edge=_QUEUES["order_stock_queue"],
          act=poisoned("order_stock_queue", _BAD_DECISIONS, type="stock.decided")),
    *(fault for link in _LINKS for fault in _of_link(link)),
)  # fmt: skip


def named(name: str) -> Fault:
    """Return the fault of a name, or the one that several are together: `one+other`.

    :raises ValueError: if there is no such fault
    """
    by_name = {fault.name: fault for fault in FAULTS}
    if unknown := set(name.split("+")) - by_name.keys():
        raise ValueError(f"no fault is called {', '.join(unknown)}; there are {', '.join(by_name)}")
    return reduce(both, (by_name[each] for each in name.split("+")))


def at_random(chance: random.Random) -> Iterator[Fault]:
    """Yield faults for ever; every third time two at once, where nothing may be lost by that."""
    while True:
        first, second = chance.sample(FAULTS, 2)
        yield both(first, second) if chance.random() < 1 / 3 and may_meet(first, second) else first
