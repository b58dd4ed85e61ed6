import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='ApiKey',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('name', models.CharField(help_text='Whose key it is, and for what.', max_length=100)),
                ('prefix', models.CharField(max_length=32, unique=True, verbose_name='begins with')),
                ('digest', models.BinaryField(max_length=32)),
                ('scopes', models.JSONField(help_text='What it may be used for.')),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('revoked_at', models.DateTimeField(null=True)),
            ],
            options={
                'verbose_name': 'API key',
                'db_table': 'api_key',
                'constraints': [models.CheckConstraint(condition=models.Q(('scopes', []), _negated=True), name='api_key_is_for_something')],
            },
        ),
    ]
