"""Products, their prices, and what has become of their stock."""

import django.db.models.deletion
import servicekit.identifiers
import servicekit.timestamps
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    # Whoever has applied all of these has applied this.
    replaces = [
        ("products", "0001_initial"),
        ("products", "0002_archive_cancellations_and_movements"),
        ("products", "0003_no_second_index"),
        ("products", "0004_product_price"),
        ("products", "0005_idempotency_keys_of_api_keys"),
        ("products", "0006_foreign_reservations"),
        ("products", "0007_stock_larger_than_a_quantity"),
    ]
    dependencies = []

    operations = [
        migrations.CreateModel(
            name='Product',
            fields=[
                ('id', models.UUIDField(default=servicekit.identifiers.new_id, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=255)),
                ('price', models.BigIntegerField(help_text="In the currency's smallest unit, for example cents.")),
                ('qty', models.BigIntegerField(verbose_name='in stock')),
                ('version', models.BigIntegerField(default=1, editable=False)),
                ('created_at', models.DateTimeField(default=servicekit.timestamps.now_in_milliseconds, editable=False)),
                ('archived_at', models.DateTimeField(blank=True, editable=False, null=True)),
            ],
            options={
                'db_table': 'product',
                'constraints': [models.CheckConstraint(condition=models.Q(('qty__gte', 0)), name='product_qty_not_negative'), models.CheckConstraint(condition=models.Q(('price__gt', 0)), name='product_price_positive')],
            },
        ),
        migrations.CreateModel(
            name='ProductPrice',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('price', models.BigIntegerField()),
                ('since', models.DateTimeField(default=servicekit.timestamps.now_in_milliseconds)),
                ('product', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='prices', to='products.product')),
            ],
            options={
                'db_table': 'product_price',
            },
        ),
        migrations.CreateModel(
            name='Reservation',
            fields=[
                ('order_id', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('product_id', models.UUIDField()),
                ('quantity', models.IntegerField()),
                ('outcome', models.CharField(choices=[('RESERVED', 'Reserved'), ('REJECTED', 'Rejected'), ('RELEASED', 'Released'), ('CANCELLED', 'Cancelled')], max_length=10)),
                ('reason', models.CharField(blank=True, default='', max_length=40)),
                ('stock_before', models.BigIntegerField(help_text='The stock that the decision was made on.')),
                ('created_at', models.DateTimeField(default=servicekit.timestamps.now_in_milliseconds)),
                ('is_foreign', models.BooleanField(db_default=False, help_text='The order service has not announced this order.')),
            ],
            options={
                'db_table': 'reservation',
                'indexes': [models.Index(fields=['-created_at'], name='reservation_latest')],
                'constraints': [models.CheckConstraint(condition=models.Q(('quantity__gt', 0)), name='reservation_quantity_positive'), models.CheckConstraint(condition=models.Q(models.Q(('outcome', 'RESERVED'), _negated=True), ('stock_before__gte', models.F('quantity')), _connector='OR'), name='reservation_only_of_what_was_there')],
            },
        ),
        migrations.CreateModel(
            name='StockMovement',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('delta', models.IntegerField()),
                ('qty_after', models.BigIntegerField(verbose_name='in stock afterwards')),
                ('reason', models.CharField(choices=[('initial', 'Initial'), ('order', 'Order'), ('cancellation', 'Cancellation'), ('restock', 'Restock'), ('correction', 'Correction')], max_length=20)),
                ('order_id', models.CharField(blank=True, default='', max_length=64)),
                ('idempotency_key', models.CharField(blank=True, default='', max_length=300)),
                ('created_at', models.DateTimeField(default=servicekit.timestamps.now_in_milliseconds)),
                ('product', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='movements', to='products.product')),
            ],
            options={
                'db_table': 'stock_movement',
                'indexes': [models.Index(fields=['product', '-id'], name='stock_movement_of_product')],
                'constraints': [models.CheckConstraint(condition=models.Q(('delta', 0), _negated=True), name='stock_movement_moves_something'), models.UniqueConstraint(condition=models.Q(('order_id', ''), _negated=True), fields=('order_id', 'reason'), name='stock_movement_once_per_order'), models.UniqueConstraint(condition=models.Q(('idempotency_key', ''), _negated=True), fields=('idempotency_key',), name='stock_movement_once_per_idempotency_key'), models.CheckConstraint(condition=models.Q(('qty_after__gte', 0)), name='stock_movement_leaves_no_debt')],
            },
        ),
    ]
