"""`stock_movement_of_product` begins with the product: one index for both."""

import django.db.models.deletion
from django.db import migrations, models

# squawk-ignore-file: older than the rule, and than the first release


class Migration(migrations.Migration):
    dependencies = [
        ("products", "0002_archive_cancellations_and_movements"),
    ]

    operations = [
        migrations.AlterField(
            model_name="stockmovement",
            name="product",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="movements",
                to="products.product",
            ),
        ),
    ]
