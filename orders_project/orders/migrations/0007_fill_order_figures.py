"""The figures of the orders that were there before they were counted, as far as they are shown."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("orders", "0006_order_figures")]

    operations = [
        # One statement sees one state of the orders and of what has been counted of them since: it
        # replaces this by that, and waits for no writer. What they count meanwhile comes on top.
        # Whoever merges (`servicekit.database.figures`, whose lock this is) must wait.
        migrations.RunSQL(
            sql="""
                SELECT pg_advisory_xact_lock(x'4649'::int, hashtext('order_figures'));
                WITH counted AS (DELETE FROM order_figures),
                    minutes AS (
                        SELECT date_trunc('minute', created_at) AS minute,
                            count(*) FILTER (WHERE status = 'PENDING') AS pending,
                            count(*) FILTER (WHERE status = 'CONFIRMED') AS confirmed,
                            count(*) FILTER (WHERE status = 'REJECTED') AS rejected,
                            count(*) FILTER (WHERE status = 'CANCELLED') AS cancelled,
                            coalesce(sum(total_price) FILTER (WHERE status = 'CONFIRMED'), 0)
                                AS revenue
                        FROM "order" WHERE created_at >= now() - interval '31 days' GROUP BY 1
                    )
                INSERT INTO order_figures
                    (period, start, pending, confirmed, rejected, cancelled, revenue)
                SELECT period, date_bin(make_interval(secs => period), minute, 'epoch'),
                    sum(pending), sum(confirmed), sum(rejected), sum(cancelled), sum(revenue)
                FROM minutes CROSS JOIN unnest('{60, 900, 3600, 86400}'::int[]) AS period
                GROUP BY 1, 2;
            """,
            reverse_sql=migrations.RunSQL.noop,
        ),
    ]
