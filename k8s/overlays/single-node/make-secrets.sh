#!/bin/sh
# Random secrets for this overlay, in secrets/ (never committed). What is there already stays as it is.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

if [ ! -e secrets/database.env ]; then
    for account in owner worker service promoter keeper; do
        password=$(secret)
        user=lcia_$account
        [ "$account" = owner ] && user=lcia
        echo "$account-password=$password"
        echo "$account-url=postgresql://$user:$password@database:5432/lcia"
    done > secrets/database.env
fi
[ -e secrets/service.env ] || echo "session-secret=$(secret)" > secrets/service.env
if [ ! -e secrets/mlflow.env ]; then
    {
        echo "backend-url=sqlite:////mlflow/mlflow.db"
        for account in admin trainer promoter; do
            echo "$account-name=$account"
            echo "$account-password=$(secret)"
        done
        echo "session-secret=$(secret)"
    } > secrets/mlflow.env
fi
if [ ! -e secrets/zenml.env ]; then
    {
        echo "store-url=sqlite:////zenml/zenml.db"
        echo "username=lcia"
        echo "password=$(secret)"
        echo "token-secret=$(secret)"
    } > secrets/zenml.env
fi
