"""Figures of orders over time, added to with every statement that writes orders (decision 0039)."""

from django.db import migrations, models


def _count(event: str, tables: str, rows: str) -> migrations.RunSQL:
    """Return what counts the rows of a statement: one row of figures for each minute of orders."""
    name = f"order_figures_{event.lower()}"
    return migrations.RunSQL(
        sql=f"""
            DO $migration$ BEGIN EXECUTE format($definition$
            CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO %I.order_figures
                    (start, pending, confirmed, rejected, cancelled, revenue)
                {rows};
                RETURN NULL;
            END $$
            $definition$, current_schema()); END $migration$;
            CREATE TRIGGER {name} AFTER {event} ON "order" REFERENCING {tables}
            FOR EACH STATEMENT EXECUTE FUNCTION {name}();
        """,
        reverse_sql=f"""DROP TRIGGER {name} ON "order"; DROP FUNCTION {name}()""",
    )


class Migration(migrations.Migration):
    dependencies = [("orders", "0005_cancellation")]

    operations = [
        migrations.CreateModel(
            name="OrderFigures",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("period", models.IntegerField(db_default=0)),
                ("start", models.DateTimeField()),
                ("pending", models.IntegerField()),
                ("confirmed", models.IntegerField()),
                ("rejected", models.IntegerField()),
                ("cancelled", models.IntegerField()),
                ("revenue", models.DecimalField(decimal_places=0, max_digits=40)),
            ],
            options={
                "db_table": "order_figures",
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("period__gt", 0)),
                        fields=("period", "start"),
                        name="order_figures_once",
                    )
                ],
            },
        ),
        _count(
            "INSERT",
            "NEW TABLE AS new",
            """
                SELECT date_trunc('minute', created_at),
                    count(*) FILTER (WHERE status = 'PENDING'),
                    count(*) FILTER (WHERE status = 'CONFIRMED'),
                    count(*) FILTER (WHERE status = 'REJECTED'),
                    count(*) FILTER (WHERE status = 'CANCELLED'),
                    coalesce(sum(total_price) FILTER (WHERE status = 'CONFIRMED'), 0)
                FROM new GROUP BY 1
            """,
        ),
        _count(
            "UPDATE",
            "OLD TABLE AS old NEW TABLE AS new",
            """
                SELECT * FROM (
                    SELECT date_trunc('minute', created_at),
                        coalesce(sum(n) FILTER (WHERE status = 'PENDING'), 0),
                        coalesce(sum(n) FILTER (WHERE status = 'CONFIRMED'), 0),
                        coalesce(sum(n) FILTER (WHERE status = 'REJECTED'), 0),
                        coalesce(sum(n) FILTER (WHERE status = 'CANCELLED'), 0),
                        coalesce(sum(n * total_price::numeric) FILTER (WHERE status = 'CONFIRMED'), 0)
                    FROM (
                        SELECT created_at, status, total_price, -1 AS n FROM old
                        UNION ALL SELECT created_at, status, total_price, 1 FROM new
                    ) AS both_states GROUP BY 1
                ) AS changed (minute, pending, confirmed, rejected, cancelled, revenue)
                -- Of what leaves the status as it is, nothing.
                WHERE (pending, confirmed, rejected, cancelled, revenue) <> (0, 0, 0, 0, 0)
            """,
        ),
    ]
