#!/usr/bin/env bash
# Creates each service's role, and the database of its name that it owns.
#
# The container runs this when its data is made. Again is harmless, and gives the roles the
# passwords of today's .env:
#   docker compose exec postgres bash /docker-entrypoint-initdb.d/create-databases.sh
set -euo pipefail

: "${PRODUCTS_DATABASE_PASSWORD:?}" "${ORDERS_DATABASE_PASSWORD:?}"

create_database() {
  # The password is read from the environment: in arguments everybody could see it.
  # CREATEDB, because the tests make databases of their own.
  psql -X -q -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    -v name="$1" -v variable="$2" <<'SQL'
\getenv password :variable
SELECT format('CREATE ROLE %I', :'name')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
ALTER ROLE :"name" LOGIN CREATEDB NOSUPERUSER NOCREATEROLE PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
REVOKE CONNECT, TEMPORARY ON DATABASE :"name" FROM PUBLIC;
SQL
}

create_database products PRODUCTS_DATABASE_PASSWORD
create_database orders ORDERS_DATABASE_PASSWORD
