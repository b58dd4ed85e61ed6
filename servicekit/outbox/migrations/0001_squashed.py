"""The outbox."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    # Whoever has applied all of these has applied this.
    replaces = [
        ("outbox", "0001_initial"),
        ("outbox", "0002_headers"),
    ]
    dependencies = []

    operations = [
        migrations.CreateModel(
            name='OutgoingEvent',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('event_id', models.UUIDField()),
                ('exchange', models.TextField()),
                ('routing_key', models.TextField()),
                ('correlation_id', models.TextField()),
                ('body', models.TextField()),
                ('headers', models.JSONField(db_default=models.Value({}, models.JSONField()))),
                ('recorded_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('available_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('attempts', models.PositiveIntegerField(db_default=0)),
                ('last_outcome', models.TextField(db_default='')),
            ],
            options={
                'verbose_name': 'event in the outbox',
                'verbose_name_plural': 'events in the outbox',
                'db_table': 'outbox_event',
            },
        ),
        # Whoever records events, the relay hears of it when they are committed. Once per
        # statement: PostgreSQL folds equal notifications of one transaction into one.
        migrations.RunSQL(
            sql="""
                CREATE FUNCTION outbox_ring() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_notify('outbox', ''); RETURN NULL; END $$;
                CREATE TRIGGER outbox_ring AFTER INSERT ON outbox_event
                FOR EACH STATEMENT EXECUTE FUNCTION outbox_ring();
            """,
            reverse_sql="""
                DROP TRIGGER outbox_ring ON outbox_event;
                DROP FUNCTION outbox_ring();
            """,
        ),
        # Rows live for milliseconds, the table is empty again and again: vacuum it often, or
        # the relay reads through the dead ones of the last minute.
        migrations.RunSQL(
            sql="""
                ALTER TABLE outbox_event SET (
                    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
                    autovacuum_vacuum_cost_delay = 0
                )
            """,
            reverse_sql="ALTER TABLE outbox_event RESET (autovacuum_vacuum_scale_factor)",
        ),
    ]
