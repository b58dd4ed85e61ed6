"""Whether `make check` refuses migrations that lock, or that old code cannot live with."""

import pytest
from django.contrib.postgres.operations import (
    AddConstraintNotValid,
    AddIndexConcurrently,
    RemoveIndexConcurrently,
    ValidateConstraint,
)
from django.db import migrations, models
from django.db.migrations import AddConstraint, AddField, AlterField, Migration
from django.db.migrations.loader import MigrationLoader
from django.db.models import PROTECT, CheckConstraint, ForeignKey, Index, IntegerField, Q

from tools.check_migrations import objections, sql_of

LIGHT = CheckConstraint(condition=Q(qty__lt=1000), name="planted")
ONE_NAME = models.UniqueConstraint(fields=["name"], name="planted")
OF_A_PRODUCT = [
    ("id", models.BigAutoField(primary_key=True)), ("product", ForeignKey("Product", PROTECT)),
]  # fmt: skip
BY_PRICE = Index(fields=["price"], name="planted")


def said_of(*operations, atomic: bool = True) -> str:
    """Return what is said against a migration that comes after those of the product service."""
    migration = Migration("0099_planted", "products")
    migration.operations, migration.atomic = list(operations), atomic
    before = MigrationLoader(None).project_state()
    return objections(sql_of(migration, before), name="products/0099_planted")


class TestAMigrationIsRefused:
    @pytest.mark.parametrize(
        ("operation", "rule"),
        [
            (AddField("Product", "x", IntegerField(default=0)), "ban-drop-default"),
            (AddField("Product", "x", ForeignKey("Product", PROTECT, null=True)), "adding-foreign"),
            (AlterField("Product", "archived_at", IntegerField()), "adding-not-nullable-field"),
            (AlterField("Product", "name", models.CharField(max_length=9)), "changing-column-type"),
            (migrations.RemoveField("Product", "name"), "ban-drop-column"),
            (migrations.DeleteModel("StockMovement"), "ban-drop-table"),
            (migrations.RenameField("Product", "name", "title"), "renaming-column"),
            (migrations.AlterModelTable("StockMovement", "movement"), "renaming-table"),
            (migrations.AddIndex("Product", BY_PRICE), "require-concurrent-index-creation"),
            (AddConstraint("Product", LIGHT), "constraint-missing-not-valid"),
            (AddConstraint("Product", ONE_NAME), "disallowed-unique-constraint"),
        ],
        ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
    )
    def test_that_locks_or_that_old_code_cannot_live_with(self, operation, rule):
        assert rule in said_of(operation)


class TestAMigrationPasses:
    @pytest.mark.parametrize(
        ("operation", "atomic"),
        [
            (AddField("Product", "x", IntegerField(null=True)), True),
            (AddField("Product", "x", IntegerField(db_default=0)), True),
            (AddConstraintNotValid("Product", LIGHT), True),
            (ValidateConstraint("Product", "product_price_positive"), True),
            (AddIndexConcurrently("Product", BY_PRICE), False),
            (RemoveIndexConcurrently("StockMovement", "stock_movement_of_product"), False),
            (migrations.CreateModel("Crate", OF_A_PRODUCT), True),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_that_others_can_work_beside(self, operation, atomic):
        assert said_of(operation, atomic=atomic) == ""
