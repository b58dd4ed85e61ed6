"""Refuses migrations that lock, or that processes of the version before cannot live with.

`python -m tools.check_migrations`, with `DJANGO_SETTINGS_MODULE` set, has squawk read the SQL of
every migration of ours; no database is asked. A comment in a migration, with its reason beside it,
is passed on to squawk: `# squawk-ignore-file ban-drop-column` (docs/operating.md).
"""

import inspect
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import django
from django.apps import apps
from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

from servicekit.database.base import SchemaEditor

_OURS = ("servicekit", "orders_project", "products_project")

_SQUAWK = (
    str(Path(sys.executable).with_name("squawk")),
    "--pg-version=15",  # the oldest that is used, Debian's
    # Taste, and the types that Django's fields have.
    "--exclude=prefer-bigint-over-int,prefer-text-field,prefer-identity",
    # Django writes no IF NOT EXISTS, and knows by itself what it has applied.
    "--exclude=prefer-robust-stmts",
    # `manage.py prepare` takes the limit away on purpose: validating may take its time.
    "--exclude=require-statement-timeout",
)


class OfflineSchemaEditor(SchemaEditor):
    """Collects SQL as `sqlmigrate` does, without a server to ask."""

    def execute(self, sql: Any, params: Any = ()) -> None:
        """Collect a statement, its parameters written by us instead of by the connection."""
        text = str(sql) % tuple(map(self.quote_value, params)) if params else str(sql)
        super().execute(text, None)

    def _constraint_names(self, *_arguments: Any, **_options: Any) -> list[str]:
        # Whatever it is called there: what is done to it is what matters.
        return ["a_name_that_the_database_knows"]


def sql_of(migration: Migration, before: ProjectState) -> str:
    """Return the SQL of a migration that finds the models as they are in `before`."""
    with (
        patch("django.db.backends.base.schema.atomic", nullcontext),
        patch("django.db.migrations.migration.atomic", nullcontext),
        OfflineSchemaEditor(connection, collect_sql=True, atomic=migration.atomic) as editor,
    ):
        migration.apply(before.clone(), editor, collect_sql=True)
    statements = "\n".join(editor.collected_sql)
    return f"BEGIN;\n{statements}\nCOMMIT;\n" if migration.atomic else f"{statements}\n"


def objections(sql: str, *, name: str) -> str:
    """Return what squawk says against the SQL of the migration `name`; empty: nothing."""
    command = [*_SQUAWK, "--reporter=gcc", "--stdin-filepath", name]
    done = subprocess.run(command, input=sql, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def main() -> int:
    """Print what is said against the migrations of one service; return 1 if there is anything."""
    django.setup()
    loader = MigrationLoader(None)
    found = ""
    for key, migration in sorted(loader.disk_migrations.items()):
        if apps.get_app_config(migration.app_label).name.startswith(_OURS):
            source = inspect.getsource(sys.modules[migration.__module__])
            accepted = re.findall(r"^# (squawk-ignore-file\b[^:\n]*)", source, re.MULTILINE)
            sql = sql_of(migration, loader.project_state(key, at_end=False))
            comments = "".join(f"-- {each}\n" for each in accepted)
            found += objections(comments + sql, name="/".join(key))
    print(found, end="")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
