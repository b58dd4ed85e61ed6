"""Orders are numbered as they are stored, and who is storing some can be seen (decision 0027)."""

from django.db import migrations, models
from django.db.models import Func, Value


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_squashed")]

    operations = [
        migrations.RunSQL(
            sql="CREATE SEQUENCE order_stored_number",
            reverse_sql="DROP SEQUENCE order_stored_number",
        ),
        # Two steps: all that are there get 0 without being rewritten, all that come a number.
        migrations.AddField("Order", "stored_number", models.BigIntegerField(db_default=0)),
        migrations.AlterField(
            "Order",
            "stored_number",
            models.BigIntegerField(
                db_default=Func(Value("order_stored_number"), function="nextval"), editable=False
            ),
        ),
        # Before a transaction takes its first number, it locks one that is smaller, until it ends.
        # Nobody waits for that lock: `OrderManager.stored_for_good` looks it up (0x4F52 is "OR").
        migrations.RunSQL(
            sql="""
                CREATE FUNCTION order_storing() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    -- Once, or a transaction of many statements fills the table of locks.
                    IF coalesce(current_setting('orders.storing', true), '') = '' THEN
                        PERFORM pg_advisory_xact_lock_shared(
                            x'4F52'::bigint << 48
                            | nextval(format('%I.order_stored_number', TG_TABLE_SCHEMA))
                        );
                        PERFORM set_config('orders.storing', 'yes', true);
                    END IF;
                    RETURN NULL;
                END $$;
                CREATE TRIGGER order_storing BEFORE INSERT ON "order"
                FOR EACH STATEMENT EXECUTE FUNCTION order_storing();
            """,
            reverse_sql="""
                DROP TRIGGER order_storing ON "order";
                DROP FUNCTION order_storing();
            """,
        ),
    ]
