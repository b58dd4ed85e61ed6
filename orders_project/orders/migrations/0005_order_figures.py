"""Figures of orders over time, added to with every statement that writes orders (decision 0039)."""

from django.db import migrations, models

_SUMS = """
    coalesce(sum(n) FILTER (WHERE status = 'PENDING'), 0),
    coalesce(sum(n) FILTER (WHERE status = 'CONFIRMED'), 0),
    coalesce(sum(n) FILTER (WHERE status = 'REJECTED'), 0),
    coalesce(sum(n) FILTER (WHERE status = 'CANCELLED'), 0),
    coalesce(sum(n * total_price::numeric) FILTER (WHERE status = 'CONFIRMED'), 0)
"""


def _trigger(event: str, tables: str, rows: str) -> migrations.RunSQL:
    """Return what counts the rows of a statement: one row of figures for each minute of orders."""
    name = f"order_figures_{event.lower()}"
    return migrations.RunSQL(
        sql=f"""
            CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT
            AS $$
            BEGIN
                INSERT INTO order_figures (start, pending, confirmed, rejected, cancelled, revenue)
                SELECT * FROM (
                    SELECT date_trunc('minute', created_at), {_SUMS}
                    FROM ({rows}) AS rows_of_it GROUP BY 1
                ) AS changed (start, pending, confirmed, rejected, cancelled, revenue)
                -- Of what leaves the status as it is, nothing.
                WHERE (pending, confirmed, rejected, cancelled, revenue) <> (0, 0, 0, 0, 0);
                RETURN NULL;
            END $$;
            CREATE TRIGGER {name} AFTER {event} ON "order" REFERENCING {tables}
            FOR EACH STATEMENT EXECUTE FUNCTION {name}();
        """,
        reverse_sql=f"""DROP TRIGGER {name} ON "order"; DROP FUNCTION {name}()""",
    )


class Migration(migrations.Migration):
    dependencies = [("orders", "0004_product_name")]

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
                "indexes": [
                    models.Index(
                        condition=models.Q(("period", 0)),
                        fields=["start"],
                        name="order_figures_new",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("period__gt", 0)),
                        fields=("period", "start"),
                        name="order_figures_once",
                    )
                ],
            },
        ),
        _trigger(
            "INSERT",
            "NEW TABLE AS new",
            "SELECT created_at, status, total_price, 1 AS n FROM new",
        ),
        _trigger(
            "UPDATE",
            "OLD TABLE AS old NEW TABLE AS new",
            "SELECT created_at, status, total_price, -1 AS n FROM old UNION ALL"
            " SELECT created_at, status, total_price, 1 FROM new",
        ),
    ]
