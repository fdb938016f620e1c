"""Checks of accounts: least privilege in the database and in MLflow, proven by trying."""

import os
from collections.abc import Iterator
from urllib.parse import urlparse

from components.registry.accounts import may_promote
from components.settings import Settings
from components.storage.database import Database
from components.storage.privilege_checks import Privileges, check_privileges
from lcia.doctor.findings import Finding

_ROLES = "`lcia database roles | psql DATABASE`, as the owner of the tables, gives each account exactly its rights"


_DOES = {"promoter": "promotes", "keeper": "erases"}
"""Accounts beside that of storage.database, with the one thing that each does."""


def of_database(settings: Settings) -> Iterator[Finding]:
    """Try with each account of the settings what every other one may do; all of it is undone.

    Raises:
        DatabaseUnavailable: the database can't be reached.
    """
    for key, privileges in _privileges(settings).items():
        if not privileges.ok:
            yield Finding("accounts", "problem", f"storage.{key}: {privileges.words()}", _ROLES)
        elif key in _DOES and privileges.account not in (key, None):
            what = f"storage.{key} opens the database as the {privileges.account}, who {_DOES[key]} nothing"
            yield Finding("accounts", "problem", what, f"name the {key}'s account there")
        elif privileges.account is None and privileges.user:
            yield Finding("accounts", "warning", f"storage.{key}: {privileges.words()}", _ROLES)
        else:
            yield Finding("accounts", "ok", privileges.words())


def of_mlflow(settings: Settings) -> Iterator[Finding]:
    """Compare whether MLflow lets this process promote with whether it should; nothing if MLflow is no server.

    Raises:
        RegistryAccountsRefused: MLflow does not answer as expected.
    """
    uri, name = settings.registry.tracking_uri, settings.assistant
    if urlparse(uri).scheme not in ("http", "https"):
        return
    able = may_promote(uri, name)
    if able is None:
        return
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    privileges = _privileges(settings)
    account = privileges.get("promoter", privileges["database"]).account
    fact = f"{user or 'anybody'} {'can' if able else 'cannot'} move the alias of {name}"
    set_up = "`lcia registry accounts` makes two accounts; MLFLOW_TRACKING_USERNAME names this process's own"
    if account is None or able == (account == "promoter"):
        yield Finding("mlflow", "ok", fact)
    elif user is None:
        yield Finding(
            "mlflow", "problem", f"{fact}: MLflow asks for no account", f"set --app-name basic-auth; {set_up}"
        )
    elif able:
        yield Finding("mlflow", "problem", f"{fact}, and this process is the {account}", set_up)
    else:
        yield Finding("mlflow", "problem", f"{fact}, and this process promotes", set_up)


def _privileges(settings: Settings) -> dict[str, Privileges]:
    """Privileges of each account, by key of `storage`."""
    storage = settings.storage
    urls = {"database": storage.database, "promoter": storage.promoter, "keeper": storage.keeper}
    return {key: check_privileges(Database(url)) for key, url in urls.items() if url}
