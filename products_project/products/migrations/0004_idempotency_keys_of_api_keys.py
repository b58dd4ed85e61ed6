from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('products', '0003_no_second_index'),
    ]

    operations = [
        migrations.AlterField(
            model_name='stockmovement',
            name='idempotency_key',
            field=models.CharField(blank=True, default='', max_length=300),
        ),
    ]
