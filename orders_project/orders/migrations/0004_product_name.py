from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0003_index_stored_number")]

    operations = [
        migrations.AddField(
            "Order",
            "product_name",
            models.CharField("product", max_length=255, blank=True, db_default=""),
        ),
    ]
