"""Transactions side by side in every order of their statements, on real connections.

Each runs in a thread of its own and stops before every statement and every commit. One at a time
is let go; when it waits for a lock of another, which PostgreSQL says, the others go on.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from django.db import connection

Transaction = Callable[[], object]


class _Runner(threading.Thread):
    """One transaction, and where it is."""

    def __init__(self, work: Transaction) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.backend = 0
        self.error: BaseException | None = None
        self.has_stopped = threading.Event()
        self.may_go = threading.Event()
        self.is_done = False

    def run(self) -> None:
        connection.ensure_connection()
        self.backend = connection.connection.info.backend_pid
        commit = connection._commit
        try:

            def pause_and_commit() -> None:
                self._pause()
                commit()

            connection._commit = pause_and_commit
            with connection.execute_wrapper(self._pause_and_execute):
                self.work()
        except BaseException as error:  # noqa: BLE001 - raised again where the others are waited for
            self.error = error
        finally:
            connection._commit = commit
            connection.close()
            self.is_done = True
            self.has_stopped.set()

    def _pause_and_execute(self, execute: Any, *arguments: Any) -> Any:
        self._pause()
        return execute(*arguments)

    def _pause(self) -> None:
        self.has_stopped.set()
        self.may_go.wait(30)
        self.may_go.clear()

    def settle(self) -> bool:
        """Wait until it has stopped, ended, or waits for another; return whether it can go on."""
        deadline = time.monotonic() + 30
        while not self.has_stopped.wait(0.002):
            assert time.monotonic() < deadline, "it takes too long"
            with connection.cursor() as cursor:
                cursor.execute("SELECT cardinality(pg_blocking_pids(%s))", [self.backend])
                if cursor.fetchone()[0]:
                    return False
        return not self.is_done

    def step(self) -> None:
        self.has_stopped.clear()
        self.may_go.set()


def run_in_order(transactions: Sequence[Transaction], choices: Sequence[int]) -> list[int]:
    """Let transactions go on in the order chosen, then the first that can; return the options."""
    runners = [_Runner(work) for work in transactions]
    for runner in runners:
        runner.start()
        runner.settle()
    options: list[int] = []
    while True:
        ready = [runner for runner in runners if runner.settle()]
        if all(runner.is_done for runner in runners):
            break
        assert ready, "all wait for each other"
        chosen = choices[len(options)] if len(options) < len(choices) else 0
        options.append(len(ready))
        ready[chosen].step()
        # Alone first: it may be who lets the others go.
        ready[chosen].settle()
    for runner in runners:
        runner.join()
        if runner.error is not None:
            raise runner.error
    return options


def in_every_order(run: Callable[[Sequence[int]], list[int]]) -> int:
    """Call `run` with the choices of every order there is; return how many there are."""
    choices: list[int] = []
    for count in range(1, 5000):
        options = run(choices)
        choices += [0] * (len(options) - len(choices))
        while choices and choices[-1] + 1 >= options[len(choices) - 1]:
            choices.pop()
        if not choices:
            return count
        choices[-1] += 1
    raise RecursionError("there are too many orders")


def lose_connections() -> None:
    """End all connections to the database but this one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
