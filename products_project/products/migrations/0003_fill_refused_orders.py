"""The refused orders of before they were counted; stock and sales are counted by the worker."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("products", "0002_figures")]

    operations = [
        # As the migration 0006 of the orders does it, and for the same reasons.
        migrations.RunSQL(
            sql="""
                SELECT pg_advisory_xact_lock(x'4649'::int, hashtext('refused_orders'));
                WITH counted AS (DELETE FROM refused_orders)
                INSERT INTO refused_orders (start, reason, product_id, orders)
                SELECT date_trunc('minute', created_at), reason,
                    CASE WHEN reason = 'insufficient_stock' THEN product_id
                        ELSE '00000000-0000-0000-0000-000000000000' END,
                    count(*)
                FROM reservation
                WHERE outcome = 'REJECTED' AND created_at >= now() - interval '31 days'
                GROUP BY 1, 2, 3;
            """,
            reverse_sql=migrations.RunSQL.noop,
        ),
    ]
