"""`manage.py test`: where the tests are."""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.core.management.commands import test


class Command(test.Command):
    """Fail, and name what runs the tests; Django's own command would find none, and say OK."""

    def handle(self, *_test_labels: Any, **_options: Any) -> None:
        """Say it.

        :raises CommandError: always
        """
        tests = f"tests/{settings.ROOT_URLCONF.partition('_')[0]}"
        raise CommandError(
            f"The tests are in {tests}: `pytest {tests}` in the root of the repository runs them,"
            " on servers of their own; `make test` runs all."
        )
