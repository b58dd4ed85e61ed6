from django.db import migrations, models
from django.db.models import Q

# squawk-ignore-file: older than the rule, and than the first release


class Migration(migrations.Migration):
    dependencies = [("orders", "0002_cancellation_and_timeline")]

    operations = [
        migrations.RemoveIndex(model_name="order", name="order_overdue"),
        migrations.RenameField(model_name="order", old_name="announce_at", new_name="recheck_at"),
        migrations.AlterField(
            model_name="order",
            name="recheck_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        # From now on the time says by itself that something is still to be heard.
        migrations.RunSQL(
            sql="""
                UPDATE "order" SET recheck_at = NULL
                WHERE status IN ('CONFIRMED', 'REJECTED')
                   OR (status = 'CANCELLED' AND released_at IS NOT NULL)
            """,
            reverse_sql="""UPDATE "order" SET recheck_at = created_at WHERE recheck_at IS NULL""",
        ),
        migrations.AddIndex(
            model_name="order",
            index=models.Index(
                fields=["recheck_at"],
                condition=Q(recheck_at__isnull=False),
                name="order_to_recheck",
            ),
        ),
    ]
