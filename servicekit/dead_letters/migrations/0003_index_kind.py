from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("dead_letters", "0002_kind")]

    operations = [
        AddIndexConcurrently(
            "DeadLetter",
            models.Index(
                fields=["queue", "kind", "id"],
                condition=models.Q(status="WAITING"),
                name="dead_letter_by_kind",
            ),
        ),
    ]
