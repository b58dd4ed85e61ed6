from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0004_product_name")]

    operations = [
        migrations.AddField(
            "Order", "cancelled_by", models.CharField(max_length=150, null=True, blank=True)
        ),
        migrations.AddField(
            "Order",
            "cancel_reason",
            models.CharField("why cancelled", max_length=500, null=True, blank=True),
        ),
    ]
