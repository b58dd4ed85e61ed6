"""The proxy that breaks connections: it finds the frames of real servers, and breaks at those."""

import os
import socket
import threading
from contextlib import suppress
from time import monotonic

import psycopg
import pytest
import redis
from kombu import Connection

from tools.chaos.proxy import AmqpFrames, Fault, PostgresFrames, Proxy, RedisFrames

DELIVERY = (
    b"\x01\0\x01\0\0\0\x04\0\x3c\0\x3c\xce"
    b"\x02\0\x01\0\0\0\x0e\0\x3c\0\0\0\0\0\0\0\0\0\x02\0\0\xce"
    b"\x03\0\x01\0\0\0\x02{}\xce"
)


class TestFrames:
    @pytest.mark.parametrize(
        ("frames", "side", "sent", "ends"),
        [
            (AmqpFrames, "client", b"AMQP\0\0\x09\x01" + DELIVERY[:12], [8, 20]),
            (AmqpFrames, "server", DELIVERY, [12, 34, 44]),
            (
                PostgresFrames, "client",
                b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x09\0\x03\0\0\0S\0\0\0\x04", [8, 17, 22],
            ),
            (PostgresFrames, "server", b"Z\0\0\0\x05I1\0\0\0\x04", [6, 11]),
            (RedisFrames, "client", b"*2\r\n$3\r\nGET\r\n$4\r\n\r\n\r\n\r\nPING\r\n", [23, 29]),
            (
                RedisFrames, "server",
                b"+OK\r\n$-1\r\n*2\r\n*1\r\n:1\r\n$2\r\nhi\r\n*0\r\n%1\r\n+a\r\n,1.5\r\n",
                [5, 10, 30, 34, 48],
            ),
        ],
    )  # fmt: skip
    def test_are_found_however_the_bytes_arrive(self, frames, side, sent, ends):
        found, splitter = [], frames()
        for arrived in range(len(sent) + 1):
            start = found[-1] if found else 0
            if (end := splitter.end(sent[:arrived], start, side)) is not None:
                found.append(end)
        assert found == ends

    def test_of_postgresql_begin_with_the_one_byte_that_answers_about_encryption(self):
        frames = PostgresFrames()
        assert frames.end(b"\0\0\0\x08\x04\xd2\x16\x2f", 0, "client") == 8
        assert frames.end(b"NR\0\0\0\x08\0\0\0\0", 0, "server") == 1
        assert frames.end(b"NR\0\0\0\x08\0\0\0\0", 1, "server") == 10

    def test_of_one_message_are_repeated_together(self):
        assert AmqpFrames().end_of_message(DELIVERY, 0, 12) == 44
        assert AmqpFrames().end_of_message(DELIVERY[:40], 0, 12) is None


@pytest.fixture
def echo():
    """A server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection, suppress(OSError):
            while sent := connection.recv(1024):
                connection.sendall(sent)

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy(echo):
    with Proxy(echo) as proxy:
        yield proxy


def connect(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def received(client, *, until=b""):
    """Read until something has come, or the end."""
    data = b""
    while chunk := client.recv(1024):
        data += chunk
        if until and data.endswith(until):
            break
    return data


def echo_of(client, sent):
    client.sendall(sent)
    return received(client, until=b"\n")


def assert_silent(client):
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(5)


class TestFaultsOfFrames:
    @pytest.mark.parametrize(
        ("action", "echoed"),
        [("cut before", b"+a\r\n"), ("cut within", b"+a\r\n+bc"), ("cut after", b"+a\r\n+bcd\r\n")],
    )
    def test_cut_the_connection_at_their_frame_and_no_other(self, proxy, action, echoed):
        fault = proxy.arm(Fault(action, 2, "server"))
        with connect(proxy) as client:
            client.sendall(b"+a\r\n+bcd\r\n+e\r\n")
            assert received(client) == echoed
        assert fault.reached.is_set()
        assert "+bcd" in fault.at
        with connect(proxy) as client:
            assert echo_of(client, b"+next\r\n") == b"+next\r\n"

    def test_hold_a_frame_and_what_is_behind_it(self, proxy):
        proxy.arm(Fault("hold", 2, "client"))
        with connect(proxy) as client, connect(proxy) as other:
            client.sendall(b"+a\r\n+b\r\n+c\r\n")
            assert received(client, until=b"\n") == b"+a\r\n"
            assert echo_of(other, b"+d\r\n") == b"+d\r\n"
            assert_silent(client)
            proxy.heal()
            assert received(client, until=b"+c\r\n") == b"+b\r\n+c\r\n"

    def test_hold_for_a_while(self, proxy):
        proxy.arm(Fault("hold", 1, "server", seconds=0.3))
        with connect(proxy) as client:
            started = monotonic()
            assert echo_of(client, b"+a\r\n") == b"+a\r\n"
            assert monotonic() - started >= 0.3

    def test_send_a_frame_twice(self, proxy):
        proxy.arm(Fault("repeat", 2, "client"))
        with connect(proxy) as client:
            client.sendall(b"+a\r\n+b\r\n+c\r\n")
            assert received(client, until=b"+c\r\n") == b"+a\r\n+b\r\n+b\r\n+c\r\n"


class TestFaultsOfConnections:
    def test_cut_all_and_let_new_ones_in(self, proxy):
        with connect(proxy) as client:
            assert echo_of(client, b"+a\r\n") == b"+a\r\n"
            proxy.cut()
            assert received(client) == b""
        connect(proxy).close()

    def test_refuse_new_ones_until_all_is_well_again(self, proxy):
        with connect(proxy) as client:
            assert echo_of(client, b"+a\r\n") == b"+a\r\n"
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                connect(proxy)
            assert echo_of(client, b"+b\r\n") == b"+b\r\n"
        proxy.heal()
        connect(proxy).close()

    def test_let_nothing_pass_until_all_is_well_again(self, proxy):
        with connect(proxy) as client:
            proxy.blackhole()
            client.sendall(b"+a\r\n")
            assert_silent(client)
            proxy.heal()
            assert received(client, until=b"\n") == b"+a\r\n"

    def test_make_a_slow_one(self, proxy):
        proxy.delay(0.1)
        with connect(proxy) as client:
            started = monotonic()
            assert echo_of(client, b"+a\r\n") == b"+a\r\n"
            assert monotonic() - started >= 0.2


class TestRealServers:
    def test_rabbitmq_gets_a_repeated_message_twice(self):
        with Proxy(os.environ["BROKER_URL"]) as proxy, Connection(proxy.url) as connection:
            with connection.SimpleBuffer("repeated") as queue:
                # The first frame from here on is the publishing: its queue is declared.
                queue.put({"n": 0})
                queue.get(timeout=10).ack()
                fault = proxy.arm(Fault("repeat", 2, "client"))
                queue.put({"n": 1})
                assert [queue.get(timeout=10).payload for _ in range(2)] == [{"n": 1}] * 2
            assert fault.reached.is_set()

    def test_postgresql_loses_a_connection_at_every_frame_until_there_is_none_left(self):
        cut = 0
        with Proxy(os.environ["PRODUCTS_DATABASE_URL"]) as proxy:
            while True:
                fault = proxy.arm(Fault("cut within", cut + 1, "server"))
                try:
                    with psycopg.connect(proxy.url, connect_timeout=5) as connection:
                        answer = connection.execute("SELECT 1").fetchone()
                except psycopg.OperationalError:
                    assert fault.reached.is_set()
                    cut += 1
                    continue
                break
        assert answer == (1,)
        # Not fewer than the parameters that a server reports before it is ready.
        assert cut > 10

    def test_redis_loses_a_connection_in_the_middle_of_a_reply(self):
        with Proxy(os.environ["CACHE_URL"]) as proxy, redis.Redis.from_url(proxy.url) as client:
            client.ping()
            fault = proxy.arm(Fault("cut within", 2, "server"))
            assert client.ping()
            with pytest.raises(redis.ConnectionError):
                client.execute_command("ECHO", "here")
            assert fault.at == repr(b"$4\r\nhere\r\n")
