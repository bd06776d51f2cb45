#!/bin/sh
# Starts the bundled replica: copies the primary once, then follows it.
set -eu

# pg_basebackup writes the name of this file, not the password, into the replica's configuration.
export PGPASSFILE=/tmp/replication.pgpass
umask 077
sed 's/[\\:]/\\&/g; s/^/*:*:*:*:/' /run/secrets/replication_password >"$PGPASSFILE"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # A copy that was interrupted is thrown away.
    rm -rf "$PGDATA.incoming"
    pg_basebackup -h postgres-primary -U replicator -D "$PGDATA.incoming" -R -X stream -c fast
    mv "$PGDATA.incoming" "$PGDATA"
fi

# A replica does not start with fewer connections than its primary had when it was last followed: a lower max_connections
# comes into force at the next start, when the replica has heard of it.
wanted=$(postgres -C max_connections "$@")
followed=$(LC_ALL=C pg_controldata | awk '/^max_connections setting:/ { print $3 }')
[ "$wanted" -ge "$followed" ] || set -- "$@" "-cmax_connections=$followed"

exec postgres "$@"
