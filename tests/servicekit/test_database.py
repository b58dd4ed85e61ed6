"""Connections to a server that is silent or has lost them; migrations of tables in use."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from urllib.parse import urlsplit

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool, PoolTimeout

from servicekit.database.base import DatabaseWrapper, check_or_forget_all
from servicekit.http import deadline
from servicekit.http.deadline import DeadlineExceeded
from tools.chaos.proxy import Proxy

URL = os.environ.get("PRODUCTS_DATABASE_URL", "")
IDLE = 4
_ADDRESS = ("host", "port", "user", "password", "dbname")
_PREPARE = "servicekit.operations.management.commands.prepare"
# How long a request waits for a connection.
TIMEOUT_SECONDS = 1.0


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    with ConnectionPool(URL, min_size=1, max_size=8, timeout=TIMEOUT_SECONDS, open=False) as opened:
        yield opened


def lose_all_connections(pool: ConnectionPool) -> None:
    """Have several connections lie idle in the pool, and end them all on the server's side."""
    with ExitStack() as in_use:
        taken = [in_use.enter_context(pool.connection()) for _ in range(IDLE)]
        pids = [connection.info.backend_pid for connection in taken]
    with psycopg.connect(URL, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s) AS pid", [pids])


class TestAPool:
    def test_of_psycopg_alone_keeps_a_request_waiting_for_too_long(self, pool):
        # Proves that the connections are as dead as after a restart.
        pool._check = ConnectionPool.check_connection
        lose_all_connections(pool)

        with pytest.raises(PoolTimeout):
            pool.getconn()

    def test_gives_a_new_connection_when_it_has_lost_all(self, pool):
        pool._check = partial(check_or_forget_all, pool)
        lose_all_connections(pool)

        for _ in range(IDLE):
            with pool.connection() as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)

    @pytest.mark.django_db
    def test_is_opened_outside_the_time_of_the_first_request(self, monkeypatch):
        monkeypatch.setattr(deadline, "is_enforced", lambda: True)
        start = ConnectionPool._start_workers

        def start_unless_the_time_is_over(pool: ConnectionPool) -> None:
            if deadline._running:
                raise DeadlineExceeded
            start(pool)

        monkeypatch.setattr(ConnectionPool, "_start_workers", start_unless_the_time_is_over)
        options = {**connection.settings_dict["OPTIONS"], "pool": {"min_size": 1}}
        pooled = DatabaseWrapper({**connection.settings_dict, "OPTIONS": options}, alias="pooled")
        try:
            with deadline.limited_to(20), pooled.cursor() as cursor:
                cursor.execute("SELECT 1")
                assert cursor.fetchone() == (1,)
        finally:
            pooled.close()
            pooled.close_pool()


@pytest.mark.django_db(transaction=True)
class TestPreparing:
    @pytest.fixture
    def reader(self) -> Iterator[psycopg.Connection]:
        """Somebody who reads a table in a transaction that does not end."""
        options = connection.get_connection_params()
        with psycopg.connect(**{name: options[name] for name in _ADDRESS}) as reading:
            reading.execute("LOCK TABLE product IN ACCESS SHARE MODE")
            yield reading

    def test_lets_others_pass_when_a_table_is_in_use_and_tries_again(self, reader, monkeypatch):
        attempts = []

        def migrate(*_arguments: object, **_options: object) -> None:
            attempts.append(1)
            try:
                with connection.schema_editor() as editor:
                    editor.execute("ALTER TABLE product ADD COLUMN planted integer")
                    editor.execute("ALTER TABLE product DROP COLUMN planted")
            except OperationalError:
                reader.rollback()
                raise

        monkeypatch.setattr(f"{_PREPARE}.call_command", migrate)

        call_command("prepare")

        assert len(attempts) == 2

    def test_waits_for_a_server_that_is_not_there_yet(self, monkeypatch):
        migrated = []
        monkeypatch.setattr(f"{_PREPARE}.call_command", lambda *_, **__: migrated.append(1))
        with Proxy(URL) as line, monkeypatch.context() as elsewhere:
            connection.close()
            elsewhere.setitem(connection.settings_dict, "PORT", line.port)
            line.refuse()
            with pytest.raises(CommandError, match="PostgreSQL does not answer"):
                call_command("prepare", wait=0)
            assert migrated == []
            threading.Timer(0.3, line.heal).start()
            call_command("prepare")
            connection.close()

        assert migrated == [1]


@pytest.mark.django_db(transaction=True)
class TestASilentServer:
    @pytest.fixture(params=[{}, {"pool": {"min_size": 1, "max_size": 1, "timeout": 5.0}}])
    def silent(self, request) -> Iterator[tuple[Proxy, DatabaseWrapper]]:
        url = urlsplit(URL)
        line = Proxy(URL)
        facts = {**connection.settings_dict, "NAME": url.path[1:], "HOST": "127.0.0.1"}
        facts |= {"PORT": line.port, "CONN_MAX_AGE": 0}
        facts["OPTIONS"] = {**facts["OPTIONS"], "answer_seconds": 0.5, **request.param}
        wrapper = DatabaseWrapper(facts, alias="through the line")
        yield line, wrapper
        wrapper.close()
        wrapper.close_pool()
        line.close()

    def test_is_not_waited_for_without_an_end_and_asked_anew_when_it_speaks(self, silent):
        line, wrapper = silent
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")
            line.blackhole()
            with pytest.raises(OperationalError, match="did not answer"):
                cursor.execute("SELECT 2")
        line.heal()
        wrapper.close_if_unusable_or_obsolete()

        with wrapper.cursor() as cursor:
            assert cursor.execute("SELECT 3").fetchone() == (3,)


@pytest.mark.django_db(transaction=True)
class TestATransactionWhoseTimeIsOver:
    """It is closed with its connection, and no other is made for it: there is no time for that."""

    @pytest.fixture
    def wait_too_long(self):
        def wait(*_: object) -> None:
            connection.connection.pgconn.send_query(b"SELECT pg_sleep(2)")
            raise DeadlineExceeded

        return wait

    def test_in_a_statement(self, wait_too_long):
        with pytest.raises(DeadlineExceeded), transaction.atomic():
            wait_too_long()

        assert connection.connection is None

    @pytest.mark.parametrize("is_undone", [False, True], ids=["commit", "rollback"])
    def test_at_its_end(self, wait_too_long, monkeypatch, is_undone):
        with monkeypatch.context() as patched:
            end = "_rollback" if is_undone else "_commit"
            patched.setattr(base.DatabaseWrapper, end, wait_too_long)
            with pytest.raises(DeadlineExceeded), transaction.atomic():
                transaction.set_rollback(is_undone)

        assert connection.connection is None
