"""`manage.py prepare`: everything a service needs in its database before it starts."""

import time
from ipaddress import ip_address
from typing import Any

import environ
from django.conf import settings
from django.contrib.auth import get_user_model, password_validation
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, connection
from psycopg.errors import LockNotAvailable

_LOCK = 0x70726570  # "prep": any number that nobody else uses in this database

# What `.env.example` says, and nobody has to guess.
_DEFAULT_PASSWORD = "admin"  # noqa: S105 - so it is
_SECRET_KEY_MIN_LENGTH = 32


class Command(BaseCommand):
    """Migrate, and create the first admin when `ADMIN_USERNAME` and `ADMIN_PASSWORD` are set."""

    help = "Migrate the database and create the first admin account. Safe to run again."

    def add_arguments(self, parser: CommandParser) -> None:
        """Say how long to wait for the database."""
        parser.add_argument(
            "--wait", type=float, default=60, help="seconds to wait for PostgreSQL, and for locks"
        )

    def handle(self, *_args: Any, wait: float, **_options: Any) -> None:
        """Do it, one at a time however many machines start at once.

        :raises CommandError: if the database does not answer in time, or others are let in by
            secrets that everybody knows
        """
        self._env = environ.Env()
        self._is_public = _is_public(self._env.str("BIND_ADDRESS", ""))
        if self._is_public:
            _require_settings_of_ours()
        self._wait_for_database(wait)
        with connection.cursor() as cursor:
            # A migration may take longer than any request; how long it waits for a lock is
            # limited by `servicekit.database`.
            connection.connection.answer_seconds = None
            cursor.execute("SET statement_timeout = 0; SET lock_timeout = 0")
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            try:
                self._migrate(wait)
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

    def _migrate(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                call_command("migrate", interactive=False, verbosity=0)
            except OperationalError as error:
                # A migration that did not get its lock is rolled back: those who wait behind it
                # go on, and it comes again.
                if not isinstance(error.__cause__, LockNotAvailable) or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                return

    def _ensure_admin(self) -> None:
        """Create the first account; its default password is replaced before others are let in.

        :raises CommandError: if others could guess it
        """
        username = self._env.str("ADMIN_USERNAME", "")
        password = self._env.str("ADMIN_PASSWORD", "")
        if not (username and password):
            return
        users = get_user_model().objects
        user = users.filter(username=username).first()
        if user is None:
            if self._is_public:
                _require_good_password(username, password)
            users.create_superuser(username=username, password=password)
            self.stdout.write(f"created the admin account {username!r}")
        elif self._is_public:
            # A password that was changed in the admin stays changed.
            is_default = user.check_password(_DEFAULT_PASSWORD)
            if is_default or user.check_password(password):
                _require_good_password(username, password)
            if is_default:
                user.set_password(password)
                user.save(update_fields=["password"])
                self.stdout.write(f"replaced the default password of {username!r}")


def _is_public(bind_address: str) -> bool:
    """Return whether others than this machine's users can reach the services."""
    try:
        is_local = ip_address(bind_address or "127.0.0.1").is_loopback
    except ValueError:
        is_local = bind_address == "localhost"
    return not is_local or bool(settings.PUBLIC_URL)


def _require_settings_of_ours() -> None:
    key = settings.SECRET_KEY
    if len(key) < _SECRET_KEY_MIN_LENGTH or key.startswith("django-insecure-"):
        raise CommandError(
            f"{_REFUSED}SECRET_KEY can be guessed. Give it at least {_SECRET_KEY_MIN_LENGTH}"
            " random characters in .env: `openssl rand -hex 32` prints some."
        )
    if settings.DEBUG:
        raise CommandError(f"{_REFUSED}DEBUG shows them the settings. Set DEBUG=false in .env.")


def _require_good_password(username: str, password: str) -> None:
    try:
        password_validation.validate_password(password, get_user_model()(username=username))
    except ValidationError as error:
        raise CommandError(
            f"{_REFUSED}ADMIN_PASSWORD, the password of the account {username!r}, can be guessed: "
            f"{' '.join(error.messages)} Set another one in .env."
        ) from error


_REFUSED = "With this BIND_ADDRESS or PUBLIC_URL, others can reach the services, and "
