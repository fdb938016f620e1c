#!/bin/sh
# Random passwords of one server, in secrets.env beside this file (never committed). What is there already stays, but
# for the secret of sessions that an earlier release gave to MLflow too: people sign in once more. The gateway's token is
# no secret of these: the container `access` makes it.
set -eu
umask 077
cd "$(dirname "$0")"
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
sessions() {
    echo "LCIA_SESSION_SECRET=$(secret)"
    echo "LCIA_MLFLOW_SESSION_SECRET=$(secret)"
}
if [ ! -e secrets.env ]; then
    port=${LCIA_DATABASE_PORT:-5432}
    for account in owner worker service promoter keeper; do
        password=$(secret)
        user=lcia_$account
        [ "$account" = owner ] && user=lcia
        upper=$(printf %s "$account" | tr a-z A-Z)
        echo "LCIA_${upper}_PASSWORD=$password"
        echo "LCIA_${upper}_URL=postgresql://$user:$password@127.0.0.1:$port/lcia"
    done > secrets.env.part
    for account in ADMIN TRAINER PROMOTER; do echo "LCIA_MLFLOW_${account}_PASSWORD=$(secret)"; done >> secrets.env.part
    sessions >> secrets.env.part
    mv secrets.env.part secrets.env
elif ! grep -q '^LCIA_MLFLOW_SESSION_SECRET=' secrets.env; then
    grep -v '^LCIA_SESSION_SECRET=' secrets.env > secrets.env.part
    sessions >> secrets.env.part
    mv secrets.env.part secrets.env
fi
if ! grep -q '^LCIA_GATEWAY_SECRET=' secrets.env; then
    cp -p secrets.env secrets.env.part
    echo "LCIA_GATEWAY_SECRET=$(secret)" >> secrets.env.part
    mv secrets.env.part secrets.env
fi
