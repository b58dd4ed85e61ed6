"""What runs low is found without reading every product."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("products", "0007_stock_larger_than_a_quantity")]

    operations = [
        AddIndexConcurrently(
            "Product",
            models.Index(
                fields=["qty", "id"],
                condition=models.Q(archived_at__isnull=True, qty__lte=10),
                name="product_low_stock",
            ),
        )
    ]
