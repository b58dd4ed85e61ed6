"""The figures of what was there before they were counted, as far as they are shown."""

from django.db import migrations

_LENGTHS = """
    (VALUES (60, interval '2 hours'), (900, '2 days'), (3600, '14 days'), (86400, '60 days'))
        AS lengths (period, kept)
"""
_STEPS = """
    (VALUES (300, interval '2 hours'), (3600, '2 days'), (86400, '60 days'))
        AS lengths (period, kept)
"""
# Those that the worker does not count.
_MOVED = """
    stock_movement AS moved
    WHERE id <= (SELECT number FROM counted_up_to WHERE name = 'movements')
        AND created_at >= now() - interval '61 days'
"""


class Migration(migrations.Migration):
    dependencies = [("products", "0003_figures")]

    operations = [
        # As the migration 0007 of the orders does it, and for the same reasons.
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
        # Who merges meanwhile adds to the same sums.
        migrations.RunSQL(
            sql=f"""
                INSERT INTO stock_figures AS known (period, start, taken, added)
                SELECT period, date_bin(make_interval(secs => period), created_at, 'epoch'),
                    coalesce(-sum(delta) FILTER (WHERE reason = 'order'), 0),
                    coalesce(sum(delta) FILTER (WHERE delta > 0 AND reason <> 'initial'), 0)
                FROM (SELECT * FROM {_MOVED}) AS moved
                JOIN {_LENGTHS} ON created_at >= now() - kept
                GROUP BY 1, 2
                ON CONFLICT (period, start) WHERE period > 0 DO UPDATE SET
                    taken = known.taken + excluded.taken, added = known.added + excluded.added;
            """,
            reverse_sql=migrations.RunSQL.noop,
        ),
        # What was given back is taken off where it was sold, at its price then.
        migrations.RunSQL(
            sql=f"""
                WITH moved AS (
                    SELECT order_id, product_id, reason, delta, created_at FROM {_MOVED}
                        AND reason IN ('order', 'cancellation')
                ),
                sold AS (
                    SELECT product_id, delta, created_at AS sold_at FROM moved
                    WHERE reason = 'order'
                    UNION ALL
                    SELECT returned.product_id, returned.delta, taken.created_at
                    FROM moved AS returned JOIN moved AS taken USING (order_id)
                    WHERE returned.reason = 'cancellation' AND taken.reason = 'order'
                ),
                prices AS (
                    SELECT product_id, price, CASE WHEN number > 1 THEN since ELSE '-infinity' END
                        AS since, until
                    FROM (
                        SELECT product_id, price, since, row_number() OVER each AS number,
                            coalesce(lead(since) OVER each, 'infinity') AS until
                        FROM product_price WINDOW each AS (PARTITION BY product_id ORDER BY since, id)
                    ) AS numbered
                )
                INSERT INTO sales AS known (period, start, product_id, units, revenue)
                SELECT period, date_bin(make_interval(secs => period), sold_at, 'epoch'),
                    product_id, -sum(delta), -sum(delta * price::numeric)
                FROM sold JOIN prices USING (product_id) JOIN {_STEPS} ON sold_at >= now() - kept
                WHERE sold_at >= since AND sold_at < until
                GROUP BY 1, 2, 3
                ON CONFLICT (period, start, product_id) WHERE period > 0 DO UPDATE SET
                    units = known.units + excluded.units,
                    revenue = known.revenue + excluded.revenue;
            """,
            reverse_sql=migrations.RunSQL.noop,
        ),
    ]
