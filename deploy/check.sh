#!/usr/bin/env bash
# Everything that can be said about the code without running a server: `make check`.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

# No server is reached; Django only wants the variables to be there.
export SECRET_KEY=for-checks-only-and-long-enough-to-please-the-deployment-check-50
export PRODUCTS_DATABASE_URL=postgresql://nobody@127.0.0.1:1/products
export ORDERS_DATABASE_URL=postgresql://nobody@127.0.0.1:1/orders
export CACHE_URL=redis://127.0.0.1:1/0 BROKER_URL=amqp://127.0.0.1:1//
export PRODUCT_API_URL=http://127.0.0.1:1/products

step() {
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then
    echo "  ✓ $name"
  else
    printf '  ✗ %s: %s\n%s\n' "$name" "$*" "$output"
    exit 1
  fi
}

step "format" ruff format --check .
step "lint" ruff check .
step "layers" lint-imports
for service in products orders; do
  export DJANGO_SETTINGS_MODULE=${service}_project.config.settings
  step "types of $service" mypy "servicekit" "${service}_project" "celery_workers/$service" celery_workers/*.py deploy tools
  # As they are in public: with TLS before them.
  step "settings of $service" env PUBLIC_URL=https://shop.example \
    python "${service}_project/manage.py" check --deploy --fail-level WARNING
  step "migrations of $service" python "${service}_project/manage.py" makemigrations --check --dry-run
  step "locks of migrations of $service" python -m tools.check_migrations
done
step "OpenAPI documents" python -m tools.openapi --check
step "AsyncAPI document" python -m tools.asyncapi --check
step "Postman collection" python -m tools.postman --check
# It needs no engine; where there is no Compose, the tests read the file as we do.
if docker compose version > /dev/null 2>&1; then
  step "compose file" env $(sed -nE 's/^(\w+)=$/\1=x/p' .env.example) docker compose --env-file .env.example config --quiet
fi
step "shell scripts" bash -n deploy/*.sh deploy/native/*.sh requirements/*.sh .ci/run
