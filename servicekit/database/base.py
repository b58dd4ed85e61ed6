"""Django's PostgreSQL backend, with a pool that survives the server's restart.

After a restart every idle connection is dead. psycopg's pool finds out one by one, with a pause of
a second after the second of them, which is as long as a request waits: it would be answered 503
though the server has been back for minutes, and the next one as well.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.db.backends.postgresql import base
from psycopg import Connection
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

from servicekit.http.deadline import DeadlineExceeded, suspended


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection from a pool that forgets all idle connections when one of them is dead."""

    _is_dedicated = False

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
        pool: Any = super().pool
        if pool is not None and isinstance(self.settings_dict["OPTIONS"].get("pool"), dict):
            # Django gives the check itself, and takes no other. Set again each time, because that
            # costs less than to remember whether it was.
            pool._check = partial(check_or_forget_all, pool)  # noqa: SLF001 - see above
            if pool.closed:
                # Not in the time of the request that happens to be the first: if that ended between
                # the start of two of the pool's threads, nobody would ever get a connection.
                with suspended():
                    pool.open()
        return pool


def check_or_forget_all(pool: ConnectionPool[Connection], connection: Connection) -> None:
    """Check a connection that was idle; if it is dead, let go of all that are.

    :raises OperationalError: if it is dead; the pool then takes another, which is new
    """
    try:
        ConnectionPool.check_connection(connection)
    except Exception:
        pool.drain()
        raise
