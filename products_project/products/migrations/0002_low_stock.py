from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("products", "0001_squashed")]

    operations = [
        migrations.AddField(
            "Product",
            "low_stock",
            models.PositiveIntegerField("low stock at", null=True, blank=True),
        ),
    ]
