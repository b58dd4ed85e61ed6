from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("orders", "0002_stored_number")]

    operations = [
        AddIndexConcurrently(
            "Order", models.Index(fields=["stored_number", "id"], name="order_as_stored")
        ),
    ]
