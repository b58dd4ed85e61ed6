#!/usr/bin/env bash
# Creates what is missing, and gives the roles the passwords of today: for each service a role that
# owns the database of its name and migrates it, and one that the service runs as, which can change
# rows and no tables. Again is harmless, and brings data of an earlier version up to date.
#
# Connects as libpq's variables say (PGHOST, PGUSER, PGPASSWORD, …).
set -euo pipefail

create_database() {
  # Passwords are read from the environment: in arguments everybody could see them.
  psql -X -q -v ON_ERROR_STOP=1 --dbname postgres -v name="$1" -v runtime="$1_runtime" \
    -v owner_variable="${1^^}_DATABASE_PASSWORD" \
    -v runtime_variable="${1^^}_RUNTIME_DATABASE_PASSWORD" <<'SQL'
\getenv owner_password :owner_variable
\getenv runtime_password :runtime_variable
SELECT format('CREATE ROLE %I', role) FROM unnest(ARRAY[:'name', :'runtime']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
-- CREATEDB, because the tests make databases of their own.
ALTER ROLE :"name" LOGIN CREATEDB NOSUPERUSER NOCREATEROLE PASSWORD :'owner_password';
ALTER ROLE :"runtime" LOGIN NOCREATEDB NOSUPERUSER NOCREATEROLE PASSWORD :'runtime_password';
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
REVOKE CONNECT, TEMPORARY ON DATABASE :"name" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"name" TO :"runtime";
\connect :name
-- Up to PostgreSQL 14, anybody may create tables here.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CREATE ON SCHEMA public TO :"name";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"runtime";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO :"runtime";
-- Those that migrations will make.
ALTER DEFAULT PRIVILEGES FOR ROLE :"name" IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"runtime";
ALTER DEFAULT PRIVILEGES FOR ROLE :"name" IN SCHEMA public
  GRANT USAGE ON SEQUENCES TO :"runtime";
SQL
}

create_database products
create_database orders

# Whoever tells Prometheus of the server sees its statistics, and no rows.
if [ -n "${MONITORING_DATABASE_PASSWORD:-}" ]; then
  psql -X -q -v ON_ERROR_STOP=1 --dbname postgres <<'SQL'
\getenv password MONITORING_DATABASE_PASSWORD
SELECT 'CREATE ROLE monitoring' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'monitoring') \gexec
ALTER ROLE monitoring LOGIN PASSWORD :'password';
GRANT pg_monitor TO monitoring;
SQL
fi
