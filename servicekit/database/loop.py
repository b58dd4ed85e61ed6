"""A thread that does what it finds to do in the database, as long as its process lives."""

import logging
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError, InterfaceError, close_old_connections, connection

from servicekit.messaging.backoff import Backoff
from servicekit.messaging.connections import BrokerUnavailable
from servicekit.threads import StoppableThread, begin_step, end_step

logger = logging.getLogger(__name__)

_EXPECTED: tuple[type[Exception], ...] = (BrokerUnavailable, DatabaseError, InterfaceError)


class Loop(StoppableThread):
    """Calls `work` again at once while it says that it found something, else after a pause.

    With a `bell`, a NOTIFY on that channel ends the pause. Whatever `work` raises, it is called
    again, after pauses that grow.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        *,
        every_seconds: float = 1.0,
        bell: str | None = None,
    ) -> None:
        super().__init__(name)
        self._work = work
        self._every_seconds = every_seconds
        self._bell = bell
        self._listening_on: Any = None

    def run(self) -> None:
        """Work until stopped."""
        backoff = Backoff()
        while not self.stopping.is_set():
            try:
                self._work_off(backoff)
                self._pause()
            except _EXPECTED as error:
                seconds = backoff.next_seconds()
                logger.warning("%s pauses for %.1f s: %s", self.name, seconds, error)
                self.stopping.wait(seconds)
            except Exception:
                logger.exception("%s starts again after an unexpected error", self.name)
                connection.close()
                self.stopping.wait(backoff.next_seconds())
        connection.close()

    def _work_off(self, backoff: Backoff) -> None:
        try:
            begin_step()
            close_old_connections()
            self._listen()
            while self._work() and not self.stopping.is_set():
                begin_step()
                backoff.reset()
        finally:
            end_step()

    def _listen(self) -> None:
        if self._bell is None:
            return
        connection.ensure_connection()
        if self._listening_on is not connection.connection:
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {self._bell}")
            self._listening_on = connection.connection

    def _pause(self) -> None:
        if self._bell is None:
            self.stopping.wait(self._every_seconds)
            return
        try:
            # The bell may be missed (a pooler in between), so there is an end to the waiting.
            for _ in self._listening_on.notifies(timeout=self._every_seconds, stop_after=1):
                pass
        except Exception as error:
            # psycopg's own, not Django's: this call goes past Django's wrappers.
            connection.close()
            raise InterfaceError(f"lost the database while listening: {error}") from error
