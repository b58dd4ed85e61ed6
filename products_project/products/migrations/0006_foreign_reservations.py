"""Reservations know whether the order service has announced their order."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("products", "0005_idempotency_keys_of_api_keys")]

    operations = [
        migrations.AddField(
            "Reservation",
            "is_foreign",
            models.BooleanField(
                db_default=False, help_text="The order service has not announced this order."
            ),
        ),
    ]
