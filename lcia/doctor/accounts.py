"""Least privilege, proven by trying: what this process's accounts can do in the database and in MLflow."""

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
"""Accounts beside that of storage.database, each for one thing."""


def of_database(settings: Settings) -> Iterator[Finding]:
    """Each account that the settings name tries the deeds of every other one; all of it is undone.

    Raises:
        DatabaseUnavailable: it can't be reached.
    """
    for key, found in _tried(settings).items():
        if not found.ok:
            yield Finding("accounts", "problem", f"storage.{key}: {found.words()}", _ROLES)
        elif key in _DOES and found.account not in (key, None):
            what = f"storage.{key} opens the database as the {found.account}, who {_DOES[key]} nothing"
            yield Finding("accounts", "problem", what, f"name the {key}'s account there")
        elif found.account is None and found.user:
            yield Finding("accounts", "warning", f"storage.{key}: {found.words()}", _ROLES)
        else:
            yield Finding("accounts", "ok", found.words())


def of_mlflow(settings: Settings) -> Iterator[Finding]:
    """Whether MLflow lets this process promote, against whether it should; nothing where MLflow is no server.

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
    tried = _tried(settings)
    account = tried.get("promoter", tried["database"]).account
    told = f"{user or 'anybody'} {'can' if able else 'cannot'} move the alias of {name}"
    set_up = "`lcia registry accounts` makes two accounts; MLFLOW_TRACKING_USERNAME names this process's own"
    if account is None or able == (account == "promoter"):
        yield Finding("mlflow", "ok", told)
    elif user is None:
        yield Finding("mlflow", "problem", f"{told}: MLflow asks for no account", f"--app-name basic-auth; {set_up}")
    elif able:
        yield Finding("mlflow", "problem", f"{told}, and this process is the {account}", set_up)
    else:
        yield Finding("mlflow", "problem", f"{told}, and this process promotes", set_up)


def _tried(settings: Settings) -> dict[str, Privileges]:
    """By key of the settings."""
    told = settings.storage
    urls = {"database": told.database, "promoter": told.promoter, "keeper": told.keeper}
    return {key: check_privileges(Database(url)) for key, url in urls.items() if url}
