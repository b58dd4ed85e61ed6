"""`manage.py prepare`: everything a service needs in its database before it starts."""

import time
from typing import Any

import environ
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, connection

_LOCK = 0x70726570  # "prep": any number that nobody else uses in this database


class Command(BaseCommand):
    """Migrate, and create the first admin when `ADMIN_USERNAME` and `ADMIN_PASSWORD` are set."""

    help = "Migrate the database and create the first admin account. Safe to run again."

    def add_arguments(self, parser: CommandParser) -> None:
        """Say how long to wait for the database."""
        parser.add_argument("--wait", type=float, default=60, help="seconds to wait for PostgreSQL")

    def handle(self, *_args: Any, wait: float, **_options: Any) -> None:
        """Do it, one at a time however many machines start at once.

        :raises CommandError: if the database does not answer in time
        """
        self._wait_for_database(wait)
        with connection.cursor() as cursor:
            # A migration may take longer than any request.
            connection.connection.answer_seconds = None
            cursor.execute("SET statement_timeout = 0; SET lock_timeout = 0")
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            try:
                call_command("migrate", interactive=False, verbosity=0)
                self._ensure_admin()
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
        self.stdout.write("database is ready")

    def _wait_for_database(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                connection.ensure_connection()
            except OperationalError as error:
                if time.monotonic() > deadline:
                    raise CommandError(f"PostgreSQL does not answer: {error}") from error
                time.sleep(0.5)
            else:
                return

    def _ensure_admin(self) -> None:
        env = environ.Env()
        username, password = env.str("ADMIN_USERNAME", ""), env.str("ADMIN_PASSWORD", "")
        users = get_user_model().objects
        # A password that was changed in the admin stays changed.
        if username and password and not users.filter(username=username).exists():
            users.create_superuser(username=username, password=password)
            self.stdout.write(f"created the admin account {username!r}")
