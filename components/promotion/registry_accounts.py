"""Accounts of an MLflow server: a trainer that shows candidates, a promoter that alone writes the promoted model.

MLflow (`mlflow server --app-name basic-auth`) gives rights on a whole registered model: who may add a version may also
move its aliases. That is why there are two of them. Whoever creates a model owns it, so an administrator makes both
before anybody else does. Clients take name and password from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from components.errors import LciaError
from components.promotion.registry_runs import artifact_location

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

READ, EDIT, MANAGE = "READ", "EDIT", "MANAGE"
_PROBE = "lcia-doctor"


class RegistryAccountsRefused(LciaError):
    """MLflow is no server with accounts, or the account in use does not administer it."""


def set_up(
    tracking_uri: str, artifacts: str, experiment: str, name: str, *, trainer: str, promoter: str
) -> list[dict[str, str]]:
    """Make the experiment and both registered models and grant rights on them; may be repeated.

    The promoter may also delete versions and files, which `lcia withdraw` asks for. Both accounts exist already.
    Returns what each account may do.

    Raises:
        RegistryAccountsRefused: see the class; also when an account does not exist.
    """
    from mlflow.exceptions import MlflowException, RestException
    from mlflow.server.auth.client import AuthServiceClient
    from mlflow.tracking import MlflowClient

    client, auth = MlflowClient(tracking_uri, tracking_uri), AuthServiceClient(tracking_uri)
    try:
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
            with suppress(RestException):  # there was none
                auth.revoke_user_permission(user, kind, resource)
            auth.grant_user_permission(user, kind, resource, right)
    except MlflowException as error:
        raise RegistryAccountsRefused(
            f"MLflow at registry.tracking_uri did not do as asked: {error}. Start it with --app-name basic-auth, make "
            "the accounts, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to an administrator's"
        ) from error
    return [{"account": user, "kind": kind, "name": shown, "right": right} for user, kind, shown, _, right in rights]


def may_promote(tracking_uri: str, name: str) -> bool:
    """Whether MLflow lets this process's account move the aliases of `name`; tried on one that is not there.

    Raises:
        RegistryAccountsRefused: it can't be reached, or does not know the account.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        MlflowClient(tracking_uri, tracking_uri).delete_registered_model_alias(name, _PROBE)
    except MlflowException as error:
        if error.error_code == "PERMISSION_DENIED":
            return False
        raise RegistryAccountsRefused(f"MLflow at registry.tracking_uri did not answer as expected: {error}") from error
    return True


def _experiment(client: "MlflowClient", artifacts: str, experiment: str) -> str:
    """Id of the experiment; where the server keeps the artifacts, below its own id, as rights are by that id."""
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(experiment, artifact_location=artifact_location(artifacts)))
