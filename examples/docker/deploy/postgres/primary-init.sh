#!/bin/sh
# Runs once, when the bundled primary makes its data directory: lets the replica in.
set -eu

psql --no-psqlrc -v ON_ERROR_STOP=1 -U postgres -d postgres <<'SQL'
\set password `cat /run/secrets/replication_password`
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'password';
SQL
echo 'host replication replicator all scram-sha-256' >>"$PGDATA/pg_hba.conf"
