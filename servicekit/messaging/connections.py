"""Connections to the broker, each owned by one thread: py-amqp is not thread-safe."""

import contextlib
from typing import Any

import amqp
from amqp.transport import TCPTransport
from kombu import Connection

from servicekit.messaging import properties

properties.take_any()

# What it looks like when the broker goes away, refuses or says nonsense: wait, connect again.
CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    amqp.exceptions.AMQPError,
    OSError,  # also what Python calls ConnectionError and TimeoutError
)

_READ_AHEAD_BYTES = 16 * 1024
# How long a broker may take to say goodbye too.
_GOODBYE_SECONDS = 1.0


class BrokerUnavailable(Exception):
    """The broker could not be reached, or stopped answering."""


BROKER_ERRORS: tuple[type[Exception], ...] = (BrokerUnavailable, *CONNECTION_ERRORS)
"""All that a caller who connects and goes on talking has to expect."""


def connect(
    url: str, *, timeout_seconds: float, heartbeat_seconds: int = 0, **options: Any
) -> Connection:
    """Open a connection, each later answer of which is waited for as long as the connection is.

    :raises BrokerUnavailable: if there is none within the time
    """
    connection = Connection(
        url,
        connect_timeout=timeout_seconds,
        heartbeat=heartbeat_seconds,
        transport_options=options,
    )
    try:
        # Not `connect()`: kombu would try again by itself, after a pause of two seconds.
        connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        established: Any = connection.connection
        # Or a broker that says nothing more would hold us for ever: py-amqp's own `read_timeout`
        # is an option of the socket, which one of gevent's does not heed.
        established.transport.sock.settimeout(timeout_seconds)
        _read_ahead(established.transport)
    except CONNECTION_ERRORS as error:
        close(connection)
        raise BrokerUnavailable(f"cannot connect to the broker: {error}") from error
    return connection


def _read_ahead(transport: Any) -> None:
    """Have a connection take from the socket what is there, in one system call.

    py-amqp asks for exactly the next bytes of a frame: nine calls for a message.
    """
    # Not one with TLS, which reads ahead by itself.
    if type(transport) is TCPTransport:
        plain: Any = transport
        receive = plain.sock.recv
        plain._quick_recv = lambda size: receive(max(size, _READ_AHEAD_BYTES))  # noqa: SLF001 - py-amqp has no setting for it


def close(connection: Connection | None) -> None:
    """Let go of a connection, in whatever state it is, without waiting for the other side."""
    if connection is None:
        return
    with contextlib.suppress(Exception):  # it is gone either way
        # Not `close()`: it says goodbye and waits for the answer of a broker that may be dead.
        connection.collect(socket_timeout=0.1)


def close_in_order(connection: Connection) -> None:
    """End a connection that works, so that what was sent last, an acknowledgement, arrives.

    Without the goodbye, a socket that is closed with something unread in it takes back what the
    broker has not read yet.
    """
    with contextlib.suppress(*CONNECTION_ERRORS):
        amqp_connection: Any = connection.connection
        amqp_connection.transport.sock.settimeout(_GOODBYE_SECONDS)
        amqp_connection.close()
    close(connection)
