#!/bin/sh
# Starts the bundled replica: copies the primary once, then follows it.
set -eu

# pg_basebackup writes the name of this file, not the password, into the replica's configuration.
export PGPASSFILE=/tmp/replication.pgpass
umask 077
awk '{ gsub(/\\/, "\\\\"); gsub(/:/, "\\:"); print "*:*:*:*:" $0 }' /run/secrets/replication_password >"$PGPASSFILE"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # A copy that was interrupted is thrown away.
    rm -rf "$PGDATA.incoming"
    pg_basebackup -h postgres-primary -U replicator -D "$PGDATA.incoming" -R -X stream -c fast
    mv "$PGDATA.incoming" "$PGDATA"
fi

exec postgres "$@"
