"""What can go wrong, one entry each: a name, the edge of the system that it cuts, and how.

A fault is in effect while its context is open, and healed when that is left. Nothing here waits for
the system to recover: that is measured.
"""

import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from typing import Any, Concatenate, ParamSpec

import amqp
import psutil
import psycopg
import redis
import requests

from deploy.failure import DeployFailure
from deploy.native.supervision import send
from servicekit.messaging.connections import close_in_order, connect
from tools.chaos.harness import Harness
from tools.chaos.proxy import Proxy

WEB = ("product-service", "order-service")
WORKERS = ("products-worker", "orders-worker")
SERVERS = ("postgres", "redis", "rabbitmq")

Link = tuple[str, str]
"""A process, and the variable that names the server which it reaches by this link."""


class Scene:
    """The system that a fault happens to, and how it is reached past its services."""

    def __init__(self, stack: Harness, chance: random.Random) -> None:
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

    def sql(self, *statements: str) -> None:
        """Run statements as the superuser."""
        with psycopg.connect(self.stack.superuser_database_url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def redis(self, *command: str) -> None:
        """Run a command of Redis."""
        with redis.Redis.from_url(self.stack.environment["CACHE_URL"], socket_timeout=5) as cache:
            cache.execute_command(*command)

    def broker(self, method: str, path: str, body: object = None) -> None:
        """Ask the broker's management API."""
        url = f"{self.stack.environment['RABBITMQ_MANAGEMENT_URL']}/api/{path}"
        answer = requests.request(method, url, json=body, timeout=30)
        if answer.status_code != requests.codes.not_found:
            answer.raise_for_status()

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """Return a channel of a connection to the broker."""
        connection = connect(self.stack.environment["BROKER_URL"], timeout_seconds=10)
        channel: Any = connection.default_channel
        channel.auto_decode = False
        yield channel
        close_in_order(connection)


Act = Callable[[Scene], AbstractContextManager[object]]
Deed = Callable[[Scene], object]
_P = ParamSpec("_P")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault."""

    name: str
    #: What is cut: `web → broker`.
    edge: str
    act: Act
    #: Which processes it happens to.
    parts: Sequence[str] = ()
    #: It throws away what a broker or a cache keeps, so that no other one may happen beside it.
    empties: bool = False
    #: What has to go through a proxy.
    links: Sequence[Link] = ()
    #: Whether it is two at the same time.
    is_both: bool = False

    @property
    def accepts(self) -> bool:
        """Whether orders have to be accepted all the time."""
        return "order-service" not in self.parts and not self.is_both

    @property
    def silent(self) -> set[str]:
        """Services that cannot answer meanwhile, because they are what fails."""
        return {*self.parts} & {*WEB}

    @property
    def forgets_attempts(self) -> bool:
        """Whether Redis may forget, or never hear of, an attempt to order under a key.

        If PostgreSQL does not answer in time either, the next attempt is answered as if it were the
        first (docs/operating.md).
        """
        return "redis" in self.parts or any(name == "CACHE_URL" for _, name in self.links)


# Ways to fail


def way(fail: Callable[Concatenate[Scene, _P], Iterator[None]]) -> Callable[_P, Act]:
    """Make a way to fail of a generator that breaks a scene, yields, and heals it."""
    return lambda *args, **options: lambda scene: contextmanager(fail)(scene, *args, **options)


@way
def done_and_undone(scene: Scene, do: Deed, undo: Deed) -> Iterator[None]:
    """Do something, and undo it later."""
    do(scene)
    try:
        yield
    finally:
        undo(scene)


@way
def again_and_again(
    scene: Scene, action: Deed, least: float = 1.0, most: float = 3.0
) -> Iterator[None]:
    """Do something at once and then after every pause of so many seconds."""
    enough = threading.Event()

    def go_on() -> None:
        action(scene)
        while not enough.wait(scene.chance.uniform(least, most)):
            action(scene)

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(go_on)
        try:
            yield
        finally:
            enough.set()
        running.result()


def killed(*names: str, number: int = signal.SIGKILL) -> Act:
    """Kill processes of ours, all at the same moment, every one to three seconds."""

    def kill(scene: Scene) -> None:
        pids = scene.stack.pids
        for name in names:
            if name in pids:
                send(pids[name], number)

    return again_and_again(kill)


def kill_a_web_process(scene: Scene) -> None:
    """Kill one of gunicorn's workers."""
    with suppress(DeployFailure, psutil.Error, OSError, IndexError):  # between two lives
        send(scene.chance.choice(scene.stack.children("order-service")), signal.SIGKILL)


@way
def absent(scene: Scene, *names: str) -> Iterator[None]:
    """Stop processes in an orderly way, and start them again."""
    for name in names:
        scene.stack.stop_process(name)
    yield
    for name in names:
        scene.stack.start_process(name, wait=False)


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
    for name in _EVERYTHING:
        scene.stack.restart(name)
    yield


power_cut = done_and_undone(lambda scene: scene.stack.kill_all(), lambda scene: scene.stack.up())
"""Kill every process at once, supervisord too, and bring all of it up again."""


@contextmanager
def any_order(scene: Scene) -> Iterator[None]:
    """Stop everything, and start it in an order that makes no sense."""
    names = [*_EVERYTHING]
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


def rabbitmqctl(do: str, undo: str) -> Act:
    """Run two commands of `rabbitmqctl`."""
    return done_and_undone(
        lambda scene: scene.stack.rabbitmqctl(*do.split()),
        lambda scene: scene.stack.rabbitmqctl(*undo.split()),
    )


def refusing(queue: str) -> Act:
    """Have the broker refuse whatever is sent to a queue."""
    full = {"max-length": 0, "overflow": "reject-publish"}
    dead = {"dead-letter-exchange": "", "dead-letter-routing-key": f"{queue}.dead"}
    policy = {"pattern": f"^{queue}$", "apply-to": "queues", "priority": 10}
    return done_and_undone(
        lambda scene: scene.broker(
            "PUT", "policies/%2F/chaos", policy | {"definition": full | dead}
        ),
        lambda scene: scene.broker("DELETE", "policies/%2F/chaos"),
    )


def deleted(path: str) -> Act:
    """Delete something of the broker's, every one to three seconds."""
    return again_and_again(lambda scene: scene.broker("DELETE", path))


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


@way
def locked(scene: Scene, database: str, statement: str) -> Iterator[None]:
    """Hold locks in another session."""
    with psycopg.connect(scene.stack.superuser_database_url, dbname=database) as connection:
        connection.execute(statement.encode())
        yield


@way
def replayed(scene: Scene, exchange: str, routing_key: str) -> Iterator[None]:
    """Tap an exchange, and publish all of it again afterwards: three times, shuffled."""
    with scene.channel() as channel:
        queue = channel.queue_declare(exclusive=True, auto_delete=True).queue
        channel.queue_bind(queue, exchange, routing_key)
        yield
        messages = list(iter(lambda: channel.basic_get(queue, no_ack=True), None)) * 3
        channel.queue_unbind(queue, exchange, routing_key)
        scene.chance.shuffle(messages)
        for message in messages:
            again = amqp.Message(message.body, **message.properties)
            channel.basic_publish(again, exchange, routing_key)


def over(link: Link, harm: Callable[[Proxy], object]) -> Act:
    """Harm a link."""
    return done_and_undone(
        lambda scene: harm(scene.proxies[link]), lambda scene: scene.proxies[link].heal()
    )


_NONSENSE = (b"", b"{", b"null", b"[]", b"7", b"\xff\xfe", b'{"orderId": {}}', b"[" * 100_000)
_QUANTITIES = ("-5", "0", '"5"', "5.5", "9223372036854775808", "true", "null", "NaN")
_ORDER = (
    '{"orderId": "x", "productId": "00000000-0000-0000-0000-000000000001", "quantity": %s,'
    ' "totalPrice": 1, "createdAt": "2026-01-01T00:00:00.000Z"}'
)
_BAD_ORDERS = [(_ORDER % quantity).encode() for quantity in _QUANTITIES]
_BAD_DECISIONS = [b'{"decisions": 1}', b'{"decisions": [1]}', b'{"decisions": [{"orderId": "x"}]}']
_BAD_TASKS = [
    b"[[],{},{}]", b"[[1],{},{}]", b'[[],{"orders":1},{}]', b'[[],{"orders":[{"id":"x"}]},{}]',
]  # fmt: skip


@way
def poisoned(scene: Scene, /, queue: str, bodies: list[bytes], **properties: Any) -> Iterator[None]:
    """Send what cannot be applied: a thousand in a row, then some between the good messages."""

    def send_some(times: int) -> None:
        with scene.channel() as channel:
            for body in itertools.islice(itertools.cycle([*_NONSENSE, *bodies]), times):
                channel.basic_publish(amqp.Message(body, **properties), "", queue)
                scene.poison += 1

    send_some(1000)
    with again_and_again(lambda _: send_some(16), 0.1, 0.5)(scene):
        yield


@way
def _at_once(scene: Scene, first: Fault, second: Fault) -> Iterator[None]:
    with first.act(scene), second.act(scene):
        yield


def both(first: Fault, second: Fault) -> Fault:
    """Return the fault that two faults are at the same time."""
    return Fault(
        name=f"{first.name}+{second.name}",
        edge=f"{first.edge}; {second.edge}",
        act=_at_once(first, second),
        parts=(*first.parts, *second.parts),
        links=(*first.links, *second.links),
        is_both=True,
    )


def may_meet(first: Fault, second: Fault) -> bool:
    """Tell whether nothing may be lost when both happen at the same time.

    An accepted order is in the broker and in Redis until it is stored. So nothing else may happen
    beside what throws away the contents of one of them.
    """
    involved = [{*one.parts, *(process for process, _ in one.links)} for one in (first, second)]
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
_EVERYTHING = (*_CLIENTS,)
_TITLES = {
    "BROKER_URL": "RabbitMQ",
    "CACHE_URL": "Redis",
    "ORDERS_DATABASE_URL": "PostgreSQL",
    "PRODUCTS_DATABASE_URL": "PostgreSQL",
    "PRODUCT_API_URL": "product service",
}
_LINKS = {
    "order-service": ("BROKER_URL", "CACHE_URL", "ORDERS_DATABASE_URL", "PRODUCT_API_URL"),
    "orders-worker": ("BROKER_URL", "CACHE_URL", "ORDERS_DATABASE_URL"),
    "products-worker": ("BROKER_URL", "CACHE_URL", "PRODUCTS_DATABASE_URL"),
    "product-service": ("CACHE_URL", "PRODUCTS_DATABASE_URL"),
}
_WORST_LINES = {
    "order-service": ("orders.intake.after_confirm",),
    "orders-worker": (
        "orders.place.before_commit", "orders.place.after_commit", "orders.settle.before_commit",
        "orders.settle.after_commit", "consumer.after_answers", "outbox.after_confirm",
    ),
    "products-worker": (
        "products.reserve.before_commit", "products.reserve.after_commit",
        "products.release.before_commit", "products.release.after_commit", "consumer.after_answers",
    ),
}  # fmt: skip
_QUEUES = {
    "orders.persist": "order service → RabbitMQ → orders worker",
    "product_order_queue": "orders worker → RabbitMQ → products worker",
    "order_stock_queue": "products worker → RabbitMQ → orders worker",
    "product_cancellation_queue": "order service → RabbitMQ → products worker",
}


def _faults(
    what: str,
    edge: str,
    ways: Mapping[str, Act],
    *,
    parts: Sequence[str] = (),
    links: Sequence[Link] = (),
    empties: Container[str] = (),
) -> Iterator[Fault]:
    """Yield a fault for each way in which something fails; `empties` says for which ways."""
    for how, act in ways.items():
        name, is_emptied = f"{what}-{how}", how in empties
        yield Fault(name=name, edge=edge, act=act, parts=parts, links=links, empties=is_emptied)


def _of_server(server: str, ways: Mapping[str, Act], **facts: Any) -> Iterator[Fault]:
    return _faults(server, _CLIENTS[server], ways, parts=(server,), **facts)


def _of_link(process: str, variable: str) -> Iterator[Fault]:
    link, title = (process, variable), _TITLES[variable]
    ways = {
        "black-hole": over(link, Proxy.blackhole),
        "slow": over(link, lambda proxy: proxy.delay(0.2)),
        "cut": again_and_again(lambda scene: scene.proxies[link].cut(), 0.1, 0.6),
    }
    name = f"{process}-{title.lower().replace(' ', '-')}"
    return _faults(name, f"{process.replace('-', ' ')} → {title}", ways, links=(link,))


def _of_queue(queue: str, edge: str) -> Iterator[Fault]:
    ways = {
        "refusing": refusing(queue),
        "deleted": deleted(f"queues/%2F/{queue}"),
        "purged": deleted(f"queues/%2F/{queue}/contents"),
    }
    return _faults(queue, edge, ways, parts=("rabbitmq",), empties={"deleted", "purged"})


def _all_faults() -> Iterator[Fault]:
    for name in _EVERYTHING:
        ways = {"killed": killed(name), "frozen": frozen(name), "absent": absent(name)}
        yield from _of_server(name, ways, empties={"killed", "absent"} if name == "redis" else ())
    a_child = again_and_again(kill_a_web_process)
    yield from _faults("web-process", _CLIENTS[WEB[1]], {"killed": a_child}, parts=WEB[1:])
    yield from _faults("workers", "RabbitMQ → workers", {"absent": absent(*WORKERS)}, parts=WORKERS)
    ways = {
        "restarted": rolling_restart,
        "killed": killed(*_EVERYTHING),
        "power-cut": power_cut,
        "started-in-any-order": any_order,
    }
    yield from _faults("all", "all", ways, parts=_EVERYTHING, empties=ways)
    for process, failpoints in _WORST_LINES.items():
        yield from _of_server(process, {f"dies-{at}": dying_at(process, at) for at in failpoints})
    ways = {
        "connections-closed": again_and_again(
            lambda scene: scene.stack.rabbitmqctl("close_all_connections", "chaos"), 0.2, 1.0
        ),
        "stop-app": rabbitmqctl("stop_app", "start_app"),
        "memory-alarm": rabbitmqctl(
            "set_vm_memory_high_watermark 0", "set_vm_memory_high_watermark 0.4"
        ),
        "disk-alarm": rabbitmqctl("set_disk_free_limit 1000000GB", "set_disk_free_limit 256MB"),
    }
    yield from _of_server("rabbitmq", ways)
    for queue, edge in _QUEUES.items():
        yield from _of_queue(queue, edge)
    exchanges = ("order.exchange", "product.exchange")
    ways = {f"{each}-deleted": deleted(f"exchanges/%2F/{each}") for each in exchanges}
    yield from _of_server("rabbitmq", ways, empties=ways)
    ways = {
        "sessions-terminated": again_and_again(_terminate, 0.1, 1.0),
        "stop-immediate": killed("postgres", number=signal.SIGQUIT),
        "read-only": altered(
            "SET default_transaction_read_only = on", "RESET default_transaction_read_only"
        ),
        "one-connection": altered("CONNECTION LIMIT 1", "CONNECTION LIMIT -1"),
        "product-rows-locked": locked("products", "SELECT FROM product FOR UPDATE"),
        "order-table-locked": locked("orders", 'LOCK TABLE "order" IN EXCLUSIVE MODE'),
    }
    yield from _of_server("postgres", ways)
    ways = {
        "clients-killed": again_and_again(
            lambda scene: scene.redis("CLIENT", "KILL", "TYPE", "normal"), 0.05, 0.5
        ),
        "flushed": again_and_again(lambda scene: scene.redis("FLUSHALL"), 0.2, 1.0),
        "shut-down": again_and_again(shut_redis_down),
    }
    yield from _of_server("redis", ways, empties={"flushed", "shut-down"})
    for key, queue in (
        ("order.created", "product_order_queue"),
        ("order.cancelled", "product_cancellation_queue"),
        ("stock.decided", "order_stock_queue"),
    ):
        exchange = "product.exchange" if queue == "order_stock_queue" else "order.exchange"
        yield from _faults(key, _QUEUES[queue], {"replayed": replayed(exchange, key)})
    as_task = {"task": "orders.persist_orders", "id": "x", "lang": "py"}
    for queue, bad in {
        "orders.persist": poisoned("orders.persist", _BAD_TASKS, application_headers=as_task),
        "product_order_queue": poisoned("product_order_queue", _BAD_ORDERS),
        "order_stock_queue": poisoned("order_stock_queue", _BAD_DECISIONS, type="stock.decided"),
    }.items():
        yield from _faults(queue, _QUEUES[queue], {"poisoned": bad})
    for process, variables in _LINKS.items():
        for variable in variables:
            yield from _of_link(process, variable)


FAULTS = tuple(_all_faults())


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
