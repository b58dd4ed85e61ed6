"""Django's PostgreSQL backend: no answer is waited for without an end, and no pool left dead.

A server that is frozen or cut off never says no: no timeout of its own, and none of TCP's, ends a
wait for what a living kernel has acknowledged.

After a restart every idle connection is dead. psycopg's pool finds out one by one, with a pause of
a second after the second of them, which is as long as a request waits: it would be answered 503
though the server has been back for minutes, and the next one as well.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from django.db.backends.postgresql.schema import DatabaseSchemaEditor
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

from servicekit.http.deadline import DeadlineExceeded, suspended


class SchemaEditor(DatabaseSchemaEditor):
    """Changes tables that are in use: whoever comes after it waits no longer than it does."""

    def __enter__(self) -> "SchemaEditor":
        """Limit the wait for a lock; not where nothing is locked meanwhile (`CONCURRENTLY`)."""
        super().__enter__()
        self.execute(
            "SET LOCAL lock_timeout = '1s'" if self.atomic_migration else "SET lock_timeout = 0"
        )
        return self


class Connection(psycopg.Connection[Any]):
    """A connection that is given up when the server does not answer in `answer_seconds`."""

    answer_seconds: float | None = None

    @classmethod
    def connect(  # type: ignore[override]  # psycopg's takes any keyword
        cls, conninfo: str = "", *, answer_seconds: float | None = None, **options: Any
    ) -> "Connection":
        """Connect; each statement then has so many seconds, None for as long as it takes."""
        connection = super().connect(conninfo, **options)
        connection.answer_seconds = answer_seconds
        return connection

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for an answer; all that goes over the connection comes by here."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.answer_seconds)
        except psycopg.errors._WaitTimeout as error:  # noqa: SLF001 - there is no other
            # Nobody knows what it is about to say: nothing can be asked over it any more.
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"the server did not answer within {self.answer_seconds} s"
            ) from error


class DatabaseWrapper(base.DatabaseWrapper):
    """A `Connection`; from a pool, where there is one, that forgets all when one is dead."""

    SchemaEditorClass = SchemaEditor

    _is_dedicated = False

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a connection, as Django does but of our own class."""
        if self.pool is not None:
            return super().get_new_connection(conn_params)
        self.isolation_level = IsolationLevel.READ_COMMITTED
        return Connection.connect(**conn_params)

    def dedicate(self) -> None:
        """Give this thread a connection of its own from now on, which no request can hold."""
        self._is_dedicated = True

    def connect(self) -> None:
        """Connect; one of our own that stands in for a pooled one is kept."""
        super().connect()
        if self._is_dedicated and self.settings_dict["OPTIONS"].get("pool"):
            self.close_at = None

    def _commit(self) -> None:
        with self._closed_when_late():
            super()._commit()  # type: ignore[misc]  # the stubs know only the public ones

    def _rollback(self) -> None:
        with self._closed_when_late():
            if self.connection.info.transaction_status == TransactionStatus.ACTIVE:
                # Its statement was left when the time was over. Nobody has to hear of it again.
                self._let_go()
            else:
                super()._rollback()  # type: ignore[misc]  # as above

    @contextmanager
    def _closed_when_late(self) -> Iterator[None]:
        try:
            yield
        except DeadlineExceeded:
            self._let_go()
            raise

    def _let_go(self) -> None:
        """Close the connection, and keep Django from making another to tidy up after this one."""
        self.close()
        self.closed_in_transaction = True

    @property
    def pool(self) -> Any:
        """The process's pool, None where connections are not pooled."""
        if self._is_dedicated:
            return None
        options = self.settings_dict["OPTIONS"].get("pool")
        if isinstance(options, dict):
            options["connection_class"] = Connection
        pool: Any = super().pool
        if pool is not None and isinstance(options, dict):
            # Django gives the check itself, and takes no other. Set again each time, because that
            # costs less than to remember whether it was.
            pool._check = partial(check_or_forget_all, pool)  # noqa: SLF001 - see above
            if pool.closed:
                # Not in the time of the request that happens to be the first: if that ended between
                # the start of two of the pool's threads, nobody would ever get a connection.
                with suspended():
                    pool.open()
        return pool


def check_or_forget_all(pool: ConnectionPool[Any], connection: psycopg.Connection[Any]) -> None:
    """Check a connection that was idle; if it is dead, let go of all that are.

    :raises OperationalError: if it is dead; the pool then takes another, which is new
    """
    try:
        ConnectionPool.check_connection(connection)
    except Exception:
        pool.drain()
        raise
