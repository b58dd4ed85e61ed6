"""The orders, before they were numbered as they are stored."""

import servicekit.identifiers
import servicekit.timestamps
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    # Whoever has applied all of these has applied this.
    replaces = [
        ("orders", "0001_initial"),
        ("orders", "0002_cancellation_and_timeline"),
        ("orders", "0003_recheck_at"),
    ]
    dependencies = []

    operations = [
        migrations.CreateModel(
            name='Order',
            fields=[
                ('id', models.UUIDField(default=servicekit.identifiers.new_id, editable=False, primary_key=True, serialize=False)),
                ('product_id', models.UUIDField()),
                ('quantity', models.IntegerField()),
                ('total_price', models.BigIntegerField()),
                ('status', models.CharField(choices=[('PENDING', 'Pending'), ('CONFIRMED', 'Confirmed'), ('REJECTED', 'Rejected'), ('CANCELLED', 'Cancelled')], default='PENDING', max_length=10)),
                ('reason', models.CharField(blank=True, default='', max_length=40)),
                ('created_at', models.DateTimeField(default=servicekit.timestamps.now_in_milliseconds, verbose_name='accepted')),
                ('stored_at', models.DateTimeField(blank=True, null=True, verbose_name='stored')),
                ('announced_at', models.DateTimeField(blank=True, null=True, verbose_name='announced')),
                ('decided_at', models.DateTimeField(blank=True, null=True, verbose_name='stock decided')),
                ('settled_at', models.DateTimeField(blank=True, null=True, verbose_name='settled')),
                ('cancelled_at', models.DateTimeField(blank=True, null=True, verbose_name='cancelled')),
                ('released_at', models.DateTimeField(blank=True, null=True, verbose_name='stock given back')),
                ('recheck_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'db_table': 'order',
                'indexes': [models.Index(fields=['-created_at', '-id'], name='order_latest'), models.Index(fields=['product_id', '-created_at', '-id'], name='order_of_product'), models.Index(fields=['status', '-created_at', '-id'], name='order_by_status'), models.Index(condition=models.Q(('recheck_at__isnull', False)), fields=['recheck_at'], name='order_to_recheck')],
                'constraints': [models.CheckConstraint(condition=models.Q(('quantity__gt', 0)), name='order_quantity_positive'), models.CheckConstraint(condition=models.Q(('total_price__gte', 0)), name='order_total_price_not_negative'), models.CheckConstraint(condition=models.Q(models.Q(('status__in', ['CONFIRMED', 'REJECTED']), _negated=True), ('settled_at__isnull', False), _connector='OR'), name='order_settled_has_time'), models.CheckConstraint(condition=models.Q(models.Q(('status', 'CANCELLED'), _negated=True), ('cancelled_at__isnull', False), _connector='OR'), name='order_cancelled_has_time')],
            },
        ),
    ]
