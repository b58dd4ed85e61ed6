# A longer limit of a varchar rewrites nothing, and is only noted.
# squawk-ignore-file changing-column-type
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('products', '0004_product_price'),
    ]

    operations = [
        migrations.AlterField(
            model_name='stockmovement',
            name='idempotency_key',
            field=models.CharField(blank=True, default='', max_length=300),
        ),
    ]
