#!/bin/sh
# Everything about the code that can be said without running the system.
# The virtual environment is on PATH. All checks run, and any that fails fails the whole.
set -u

failed=0

check() {
    title=$1
    shift
    if "$@"; then
        echo "✓ $title" >&2
    else
        echo "✗ $title" >&2
        failed=1
    fi
}

for_project() {
    project=$1
    shift
    # Enough for Django to load its settings; nothing is connected to.
    env DJANGO_SETTINGS_MODULE="${project}_project.config.settings" \
        SECRET_KEY=only-for-checks-and-nothing-else-ever-signed-with-it-0123456789 \
        ALLOWED_HOSTS=localhost DEBUG=false \
        PRODUCTS_DATABASE_URL=postgresql://127.0.0.1:1/products \
        ORDERS_DATABASE_URL=postgresql://127.0.0.1:1/orders \
        BROKER_URL=amqp://127.0.0.1:1// CACHE_URL=redis://127.0.0.1:1/0 \
        PRODUCT_API_URL=http://127.0.0.1:1/products \
        "$@"
}

check 'format' ruff format --check --quiet .
check 'lint' ruff check --quiet .
check 'layers' lint-imports
for project in products orders; do
    check "types, $project" for_project $project \
        mypy "${project}_project" "celery_workers/$project" servicekit
    check "Django checks, $project" for_project $project \
        python "${project}_project/manage.py" check --fail-level WARNING
    check "migrations, $project" for_project $project \
        python -W ignore::RuntimeWarning "${project}_project/manage.py" \
        makemigrations --check --dry-run
done
check 'types, deploy' for_project products mypy deploy
check 'compose file' python -m deploy.check_compose

exit $failed
