"""Every price that a product had, and since when; of those there are, since now."""

import django.db.models.deletion
from django.db import migrations, models

import servicekit.timestamps


class Migration(migrations.Migration):
    dependencies = [
        ("products", "0003_no_second_index"),
    ]

    operations = [
        migrations.CreateModel(
            name="ProductPrice",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("price", models.BigIntegerField()),
                ("since", models.DateTimeField(default=servicekit.timestamps.now_in_milliseconds)),
                (
                    "product",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="prices",
                        to="products.product",
                    ),
                ),
            ],
            options={"db_table": "product_price"},
        ),
        # What they cost before is not known. Not since their creation: the ledger would take this
        # price for that of their first orders.
        migrations.RunSQL(
            """
            INSERT INTO product_price (product_id, price, since)
            SELECT id, price, clock_timestamp() FROM product ORDER BY id
            """,
            migrations.RunSQL.noop,
        ),
    ]
