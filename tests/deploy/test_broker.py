"""Whether the broker does by default and by policy what no declaration asks of it."""

import os
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from urllib.parse import urlsplit

import amqp
import pytest
import requests
from kombu import Connection

from deploy import broker
from servicekit.messaging.topology import declare_exchanges, declare_queue
from tests.servicekit.private_broker import VirtualHost, eventually, virtual_host

QUEUE = "product_order_queue"


@pytest.fixture(params=["classic", "quorum"])
def host(request) -> Iterator[VirtualHost]:
    with virtual_host(queue_type=request.param) as host:
        yield host


@pytest.fixture
def bare_host() -> Iterator[VirtualHost]:
    """A virtual host as the broker makes its first one: nobody has prepared it."""
    with virtual_host(queue_type=None) as host:
        yield host


def prepare(host: VirtualHost, queue_type: str, **users: Any) -> None:
    place = {"queue_type": queue_type, "virtual_host": host.name}
    broker.prepare(host.management_url, **place, **users)


def type_of(host: VirtualHost, queue: str) -> str:
    address = f"{host.management_url}/api/queues/{host.name}/{queue}"
    return requests.get(address, timeout=10).json()["type"]


def reject_one(host: VirtualHost, queue: str) -> None:
    """Declare a queue as any client would, and reject a message in it."""
    for name in (queue, f"{queue}.dead"):
        host.declare_queue(name)
    with host.channel() as channel:
        channel.confirm_select()
        channel.basic_publish_confirm(amqp.Message(b"{}"), routing_key=queue)
        eventually(lambda: (message := channel.basic_get(queue)) and _reject(channel, message))


def _reject(channel, message) -> bool:
    channel.basic_reject(message.delivery_tag, requeue=False)
    return True


class TestPrepare:
    @pytest.mark.parametrize("queue", broker.QUEUES)
    def test_parks_what_is_rejected(self, host, queue):
        reject_one(host, queue)

        [letter] = host.take(f"{queue}.dead", count=1)
        assert letter.body == b"{}"

    def test_is_what_parks_it(self, bare_host):
        # If this fails, the test above passes for the wrong reason.
        reject_one(bare_host, QUEUE)

        eventually(lambda: bare_host.count(QUEUE) == 0)
        assert bare_host.take_all(f"{QUEUE}.dead") == []

    def test_leaves_queues_of_others_alone(self, host):
        reject_one(host, f"my-{QUEUE}")

        eventually(lambda: host.count(f"my-{QUEUE}") == 0)
        assert host.take_all(f"my-{QUEUE}.dead") == []

    @pytest.mark.parametrize("host", ["quorum"], indirect=True)
    def test_decides_the_type_of_plain_queues(self, host):
        host.declare_queue(QUEUE)
        host.declare_queue(QUEUE)

        assert type_of(host, QUEUE) == "quorum"

    @pytest.mark.parametrize("host", ["quorum"], indirect=True)
    def test_lets_exclusive_queues_be(self, host):
        with host.channel() as channel:
            assert channel.queue_declare("", exclusive=True).queue

    def test_changes_the_type_of_an_empty_virtual_host(self, bare_host):
        prepare(bare_host, "quorum")

        bare_host.declare_queue(QUEUE)
        assert type_of(bare_host, QUEUE) == "quorum"

    @pytest.mark.parametrize("version", ["3.10.8", "3.13.7", "4.0.5", "4.2.1"])
    def test_knows_which_queues_are_synced(self, version):
        assert broker.type_on_disk(version) == ("classic" if version < "4" else "quorum")

    def test_takes_them_if_no_type_is_given(self, bare_host):
        overview = requests.get(f"{bare_host.management_url}/api/overview", timeout=10).json()

        prepare(bare_host, "")

        bare_host.declare_queue(QUEUE)
        assert type_of(bare_host, QUEUE) == broker.type_on_disk(overview["rabbitmq_version"])

    def test_keeps_what_is_there(self, bare_host):
        bare_host.declare_queue(QUEUE)
        with bare_host.channel() as channel:
            channel.basic_publish(amqp.Message(b"{}", delivery_mode=2), routing_key=QUEUE)

        for queue_type in ("quorum", "classic", "quorum"):
            prepare(bare_host, queue_type)

        # As a worker does again and again; RabbitMQ 4 would refuse it under another default.
        bare_host.declare_queue(QUEUE)
        [kept] = bare_host.take(QUEUE, count=1)
        assert kept.body == b"{}"


SERVICES = ["products", "orders"]


@pytest.fixture(scope="module")
def shared_host() -> Iterator[VirtualHost]:
    with virtual_host() as host:
        yield host


@pytest.fixture(scope="module")
def url_of(shared_host) -> Iterator[Callable[[str], str]]:
    """The URL of each service's user in this virtual host, where all queues are there."""
    host = shared_host
    url = urlsplit(host.url)
    place = url.netloc.rpartition("@")[2]
    urls = {
        service: url._replace(netloc=f"{service}-{host.name}:s3cret@{place}").geturl()
        for service in SERVICES
    }
    for _ in range(2):
        prepare(host, "classic", users=urls)
    with host.channel() as channel:
        declare_exchanges(channel)
        for queue in broker.QUEUES:
            declare_queue(channel, queue, keys=[])
    yield urls.__getitem__
    for service in SERVICES:
        user = f"{host.management_url}/api/users/{service}-{host.name}"
        requests.delete(user, timeout=10).raise_for_status()


class TestTheUserOfAService:
    ATTEMPTS: ClassVar[dict[str, Callable[[Any, str, str], object]]] = {
        "consume": lambda channel, queue, _: channel.basic_consume(queue),
        "get": lambda channel, queue, _: channel.basic_get(queue),
        "purge": lambda channel, queue, _: channel.queue_purge(queue),
        "delete": lambda channel, queue, _: channel.queue_delete(queue),
        "declare": lambda channel, queue, _: channel.queue_declare(queue, durable=True),
        "bind": lambda channel, queue, exchange: channel.queue_bind(queue, exchange, "#"),
        "publish": lambda channel, _, exchange: channel.basic_publish_confirm(
            amqp.Message(b"{}"), exchange=exchange, routing_key="order.created"
        ),
        "make a queue": lambda channel, *_: channel.queue_declare("of-nobody", durable=True),
        "make an exchange": lambda channel, *_: channel.exchange_declare("of-nobody", "topic"),
    }

    @pytest.mark.parametrize("attempt", ATTEMPTS)
    @pytest.mark.parametrize("service", SERVICES)
    def test_can_do_nothing_with_what_the_other_one_has(self, url_of, service, attempt):
        [other] = {*SERVICES} - {service}
        for queue in broker.QUEUES_OF[other]:
            for name in (queue, f"{queue}.dead"):
                with Connection(url_of(service)) as connection:
                    channel: Any = connection.channel()
                    channel.confirm_select()
                    with pytest.raises(amqp.AccessRefused):
                        self.ATTEMPTS[attempt](channel, name, f"{other.removesuffix('s')}.exchange")

    @pytest.mark.parametrize("service", SERVICES)
    def test_sees_no_other_virtual_host_and_no_console(self, shared_host, url_of, service):
        url = urlsplit(url_of(service))
        with (
            pytest.raises(amqp.NotAllowed),
            Connection(url._replace(path="//").geturl()) as connection,
        ):
            connection.channel()
        console = urlsplit(shared_host.management_url)
        netloc = f"{url.username}:{url.password}@{console.hostname}:{console.port}"
        answer = requests.get(f"{console._replace(netloc=netloc).geturl()}/api/queues", timeout=10)
        assert answer.status_code == 401


class TestTheBrokersOwn:
    def test_virtual_host_is_prepared_when_it_answers(self, monkeypatch, capsys):
        url = os.environ["RABBITMQ_MANAGEMENT_URL"]
        monkeypatch.setenv("QUEUE_TYPE", "classic")
        for service in SERVICES:
            monkeypatch.setenv(
                f"{service.upper()}_BROKER_URL", f"amqp://{service}:secret@localhost"
            )

        assert broker.main() == 0

        assert capsys.readouterr().out == "RabbitMQ is ready\n"
        policies = requests.get(f"{url}/api/policies/%2F", timeout=10).json()
        assert {policy["name"] for policy in policies} >= set(broker.QUEUES)
