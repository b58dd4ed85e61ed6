"""Figures of stock, sales and refused orders over time (decision 0039)."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("products", "0002_low_stock"),
    ]

    operations = [
        migrations.CreateModel(
            name="CountedUpTo",
            fields=[
                ("name", models.CharField(max_length=20, primary_key=True, serialize=False)),
                ("number", models.BigIntegerField()),
            ],
            options={
                "db_table": "counted_up_to",
            },
        ),
        migrations.CreateModel(
            name="RefusedOrders",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("period", models.IntegerField(db_default=0)),
                ("start", models.DateTimeField()),
                ("reason", models.CharField(max_length=40)),
                ("product_id", models.UUIDField()),
                ("orders", models.IntegerField()),
            ],
            options={
                "db_table": "refused_orders",
                "indexes": [
                    models.Index(
                        condition=models.Q(("period", 0)),
                        fields=["start"],
                        name="refused_orders_new",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("period__gt", 0)),
                        fields=("period", "start", "reason", "product_id"),
                        name="refused_orders_once",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Sales",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("period", models.IntegerField(db_default=0)),
                ("start", models.DateTimeField()),
                ("product_id", models.UUIDField()),
                ("units", models.BigIntegerField()),
                ("revenue", models.DecimalField(decimal_places=0, max_digits=40)),
            ],
            options={
                "db_table": "sales",
                "indexes": [
                    models.Index(
                        condition=models.Q(("period", 0)), fields=["start"], name="sales_new"
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("period__gt", 0)),
                        fields=("period", "start", "product_id"),
                        name="sales_once",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="StockFigures",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("period", models.IntegerField(db_default=0)),
                ("start", models.DateTimeField()),
                ("taken", models.BigIntegerField()),
                ("added", models.BigIntegerField()),
            ],
            options={
                "db_table": "stock_figures",
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("period__gt", 0)),
                        fields=("period", "start"),
                        name="stock_figures_once",
                    )
                ],
            },
        ),
        # A statement that stores decisions adds one row for each minute, reason and product.
        migrations.RunSQL(
            sql="""
                DO $migration$ BEGIN EXECUTE format($definition$
                CREATE FUNCTION refused_orders_count() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    INSERT INTO %I.refused_orders (start, reason, product_id, orders)
                    SELECT date_trunc('minute', created_at), reason,
                        CASE WHEN reason = 'insufficient_stock' THEN product_id
                            ELSE '00000000-0000-0000-0000-000000000000' END,
                        count(*)
                    FROM new WHERE outcome = 'REJECTED' GROUP BY 1, 2, 3;
                    RETURN NULL;
                END $$
                $definition$, current_schema()); END $migration$;
                CREATE TRIGGER refused_orders_count AFTER INSERT ON reservation
                REFERENCING NEW TABLE AS new
                FOR EACH STATEMENT EXECUTE FUNCTION refused_orders_count();
            """,
            reverse_sql="""
                DROP TRIGGER refused_orders_count ON reservation;
                DROP FUNCTION refused_orders_count();
            """,
        ),
        # Movements from here on are counted by the worker, those before by the next migration. Who
        # stores some has ended, so that none comes later with a smaller id.
        migrations.RunSQL(
            sql="""
                LOCK TABLE stock_movement IN SHARE MODE;
                INSERT INTO counted_up_to (name, number)
                SELECT 'movements', coalesce(max(id), 0) FROM stock_movement;
            """,
            reverse_sql=migrations.RunSQL.noop,
        ),
    ]
