#!/bin/sh
# Whether both pools of this PgCat have reached PostgreSQL. PgCat refuses a login ("Pool down") until the pool has been connected
# to one of its servers, and takes it from then on; a login takes no server connection.
set -eu

PGPASSWORD=$(cat "${SECRETS_DIR:-/run/secrets}/database_password")
export PGPASSWORD PGCONNECT_TIMEOUT=7 PGSSLMODE=disable

for pool in permify_writer permify_reader; do
    psql --no-psqlrc --no-password --quiet --host=127.0.0.1 --port="${READY_PORT:-6432}" \
        --username='permify' --dbname="$pool" --command='\q' ||
        exit 1
done
