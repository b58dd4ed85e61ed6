"""Whether `make check` refuses migrations that lock, or that old code cannot live with."""

import pytest
from django.contrib.postgres import operations
from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader

from tools.check_migrations import objections, sql_of

LIGHT = models.CheckConstraint(condition=models.Q(qty__lt=1000), name="planted")
UNIQUE = models.UniqueConstraint(fields=["name"], name="planted")
BY_PRICE = models.Index(fields=["price"], name="planted")
PRODUCT = models.ForeignKey("Product", models.PROTECT)
PRODUCT_OR_NONE = models.ForeignKey("Product", models.PROTECT, null=True)

REFUSED = {
    "ban-drop-default": migrations.AddField("Product", "x", models.IntegerField(default=0)),
    "adding-foreign": migrations.AddField("Product", "x", PRODUCT_OR_NONE),
    "adding-not-nullable-field": migrations.AlterField(
        "Product", "archived_at", models.IntegerField()
    ),
    "changing-column-type": migrations.AlterField(
        "Product", "name", models.CharField(max_length=9)
    ),
    "ban-drop-column": migrations.RemoveField("Product", "name"),
    "ban-drop-table": migrations.DeleteModel("StockMovement"),
    "renaming-column": migrations.RenameField("Product", "name", "title"),
    "renaming-table": migrations.AlterModelTable("StockMovement", "movement"),
    "require-concurrent-index-creation": migrations.AddIndex("Product", BY_PRICE),
    "constraint-missing-not-valid": migrations.AddConstraint("Product", LIGHT),
    "disallowed-unique-constraint": migrations.AddConstraint("Product", UNIQUE),
}
PASSED = [
    migrations.AddField("Product", "x", models.IntegerField(null=True)),
    migrations.AddField("Product", "x", models.IntegerField(db_default=0)),
    operations.AddConstraintNotValid("Product", LIGHT),
    operations.ValidateConstraint("Product", "product_price_positive"),
    operations.AddIndexConcurrently("Product", BY_PRICE),
    operations.RemoveIndexConcurrently("StockMovement", "stock_movement_of_product"),
    migrations.CreateModel(
        "Crate", [("id", models.BigAutoField(primary_key=True)), ("product", PRODUCT)]
    ),
]


def said_of(operation) -> str:
    """Return what is said against a migration that comes after those of the product service."""
    migration = migrations.Migration("0099_planted", "products")
    migration.operations = [operation]
    migration.atomic = not isinstance(operation, operations.NotInTransactionMixin)
    before = MigrationLoader(None).project_state()
    return objections(sql_of(migration, before), name="products/0099_planted")


@pytest.mark.parametrize("rule", REFUSED)
def test_a_migration_that_locks_or_that_old_code_cannot_live_with_is_refused(rule):
    assert rule in said_of(REFUSED[rule])


@pytest.mark.parametrize("operation", PASSED, ids=lambda value: type(value).__name__)
def test_a_migration_that_others_can_work_beside_passes(operation):
    assert said_of(operation) == ""
