#!/bin/sh
# PostgreSQL in a container: makes the database at the first start, then runs it. LCIA_OWNER_PASSWORD is its owner's.
set -eu
umask 077
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${LCIA_OWNER_PASSWORD:?set it to the password of the database's owner}"
    work=$(mktemp -d)
    printf '%s' "$LCIA_OWNER_PASSWORD" > "$work/password"
    rm -rf "$PGDATA.new" # of a first start that was interrupted
    initdb --pgdata="$PGDATA.new" --username=lcia --pwfile="$work/password" --encoding=UTF8 --locale=C.UTF-8 \
        --auth-local=scram-sha-256 --auth-host=scram-sha-256 --data-checksums
    rm -r "$work"
    echo 'CREATE DATABASE lcia;' | postgres --single -D "$PGDATA.new" postgres
    echo 'host all all all scram-sha-256' >> "$PGDATA.new/pg_hba.conf"
    mv "$PGDATA.new" "$PGDATA"
fi
unset LCIA_OWNER_PASSWORD
exec postgres -D "$PGDATA" -c listen_addresses="${LCIA_LISTEN:-*}" -c unix_socket_directories=/tmp -c password_encryption=scram-sha-256
