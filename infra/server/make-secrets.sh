#!/bin/sh
# Random passwords of one server, in secrets.env beside this file (never committed). What is there already stays.
set -eu
umask 077
cd "$(dirname "$0")"
[ ! -e secrets.env ] || exit 0
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
port=${LCIA_DATABASE_PORT:-5432}
{
    for account in owner worker service promoter keeper; do
        password=$(secret)
        user=lcia_$account
        [ "$account" = owner ] && user=lcia
        upper=$(printf %s "$account" | tr a-z A-Z)
        echo "LCIA_${upper}_PASSWORD=$password"
        echo "LCIA_${upper}_URL=postgresql://$user:$password@127.0.0.1:$port/lcia"
    done
    for account in ADMIN TRAINER PROMOTER; do echo "LCIA_MLFLOW_${account}_PASSWORD=$(secret)"; done
    echo "LCIA_SESSION_SECRET=$(secret)"
} > secrets.env.part
mv secrets.env.part secrets.env
