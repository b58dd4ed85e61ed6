from django.db import migrations, models
from django.db.models import Value


class Migration(migrations.Migration):
    dependencies = [("outbox", "0001_initial")]

    operations = [
        migrations.AddField(
            "OutgoingEvent",
            "headers",
            # A default of the database's: a process of the version before does not know the column.
            models.JSONField(db_default=Value({}, models.JSONField())),
        ),
    ]
