"""Accounts of an MLflow server: a trainer that shows candidates, a promoter that alone writes the promoted model.

MLflow (`mlflow server --app-name basic-auth`) gives rights on a whole registered model: an account that may add a
version may also move its aliases. Therefore there are two models. The account that creates a model owns it, so an
administrator makes both before anybody else does. Clients take name and password from MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD.
"""

import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.errors import LciaError
from components.registry.client import prepare
from components.registry.files import artifact_location

if TYPE_CHECKING:
    from mlflow.server.auth.client import AuthServiceClient
    from mlflow.tracking import MlflowClient

READ, EDIT, MANAGE = "READ", "EDIT", "MANAGE"
_PROBE = "lcia-doctor"


class RegistryAccountsRefused(LciaError):
    """MLflow is not a server with accounts, or the account in use is not an administrator."""


@dataclass(frozen=True)
class Granted:
    """One right of one account."""

    account: str
    kind: str
    """experiment or registered_model."""
    name: str
    right: str


@dataclass(frozen=True)
class SetUp:
    """Rights and new passwords after a set-up."""

    rights: list[Granted]
    passwords: dict[str, str]
    """Random passwords of accounts made just now; stored nowhere."""


def set_up(
    tracking_uri: str,
    artifacts: str,
    experiment: str,
    name: str,
    *,
    trainer: str,
    promoter: str,
    passwords: Mapping[str, str] = {},
) -> SetUp:
    """Make the experiment, both registered models and the accounts, and grant rights; may be repeated.

    An existing account keeps its password; a new one gets that of `passwords` (by account), else a random one. The
    promoter may also delete versions and files, which `lcia withdraw` needs.

    Raises:
        RegistryAccountsRefused: see the class.
    """
    prepare(tracking_uri)
    from mlflow.exceptions import MlflowException, RestException
    from mlflow.server.auth.client import AuthServiceClient
    from mlflow.tracking import MlflowClient

    client, auth = MlflowClient(tracking_uri, tracking_uri), AuthServiceClient(tracking_uri)
    try:
        new_passwords = _accounts(auth, (trainer, promoter), passwords)
        identity = _experiment(client, artifacts, experiment)
        for model in (name, f"{name}-candidates"):
            if not client.search_registered_models(f"name = '{model}'"):
                client.create_registered_model(model)
        rights = [
            (trainer, "experiment", experiment, identity, EDIT),
            (trainer, "registered_model", f"{name}-candidates", f"{name}-candidates", EDIT),
            (trainer, "registered_model", name, name, READ),
            (promoter, "experiment", experiment, identity, MANAGE),
            (promoter, "registered_model", f"{name}-candidates", f"{name}-candidates", MANAGE),
            (promoter, "registered_model", name, name, MANAGE),
        ]
        for user, kind, _, resource, right in rights:
            with suppress(RestException):  # there was no right to revoke
                auth.revoke_user_permission(user, kind, resource)
            auth.grant_user_permission(user, kind, resource, right)
    except (MlflowException, OSError) as error:
        raise RegistryAccountsRefused(
            f"MLflow at registry.tracking_uri did not do as asked: {error}. Start it with --app-name basic-auth, and "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to an administrator's"
        ) from error
    return SetUp([Granted(user, kind, name_shown, right) for user, kind, name_shown, _, right in rights], new_passwords)


def may_promote(tracking_uri: str, name: str) -> bool | None:
    """True if MLflow lets this process's account move the aliases of `name`; None if there is no such model yet.

    Tested by deleting an alias that does not exist.

    Raises:
        RegistryAccountsRefused: it can't be reached, or does not know the account.
    """
    prepare(tracking_uri)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri, tracking_uri)
    try:
        if not client.search_registered_models(f"name = '{name}'"):
            return None
        client.delete_registered_model_alias(name, _PROBE)
    except MlflowException as error:
        if error.error_code == "PERMISSION_DENIED":
            return False
        raise RegistryAccountsRefused(f"MLflow at registry.tracking_uri did not answer as expected: {error}") from error
    return True


def _accounts(auth: "AuthServiceClient", names: Iterable[str], passwords: Mapping[str, str]) -> dict[str, str]:
    """Make accounts that do not exist; returns the passwords that were generated."""
    from mlflow.exceptions import MlflowException

    new_passwords = {}
    for name in names:
        try:
            auth.get_user(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            if name not in passwords:
                new_passwords[name] = secrets.token_urlsafe(24)
            auth.create_user(name, passwords.get(name) or new_passwords[name])
    return new_passwords


def _experiment(client: "MlflowClient", artifacts: str, experiment: str) -> str:
    """Id of the experiment. If the server keeps the artifacts, they go below that id, because rights go by it."""
    existing = client.get_experiment_by_name(experiment)
    if existing is not None:
        return str(existing.experiment_id)
    return str(client.create_experiment(experiment, artifact_location=artifact_location(artifacts)))
