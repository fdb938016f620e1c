"""A real MLflow server with accounts: the trainer shows candidates and can't promote, the promoter can."""

import importlib.util
import os
import secrets
from pathlib import Path

import pytest
from mlflow_server import MlflowServer, serving
from promotion_state import SITE, client, new_state

from components.audit.log import SYSTEM
from components.promotion import approvals, champion
from components.registry.accounts import EDIT, MANAGE, RegistryAccountsRefused, may_promote, set_up
from components.registry.outbox import apply_outbox
from components.registry.registry import Registry, RegistryError
from components.settings import ApprovalSettings, PolicySettings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("flask_wtf") is None, reason="MLflow's server with accounts needs Flask-WTF"
    ),
]
PASSWORDS = {"admin": secrets.token_urlsafe(16)}
AUTO = PolicySettings(approval=ApprovalSettings(auto=True))


@pytest.fixture(scope="module")
def server(tmp_path_factory, empty_mlflow):
    """Address of a server with an administrator."""
    folder: Path = tmp_path_factory.mktemp("mlflow-server")
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "auth_cache_ttl_seconds = 60\n"  # else every request hashes the password, which is slow by design
    )
    told = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORDS["admin"],
    }
    with serving(MlflowServer(folder, empty_mlflow, "--app-name", "basic-auth", told=told)) as found:
        yield found.address


@pytest.fixture
def sign_in(monkeypatch):
    """Act as one of the accounts, as processes do: by two environment variables."""

    def act(name: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORDS[name])

    return act


def test_the_trainer_shows_candidates_and_only_the_promoter_promotes(server, tmp_path, sign_in, caplog):
    from mlflow.exceptions import MlflowException

    sign_in("admin")
    names = {"trainer": "trainer", "promoter": "promoter"}
    made = set_up(server, "mlflow-artifacts:/lcia", "lcia", "a", **names)
    assert set(made.passwords) == {"trainer", "promoter"}
    PASSWORDS.update(made.passwords)
    again = set_up(server, "mlflow-artifacts:/lcia", "lcia", "a", **names)
    assert (again.rights, again.passwords) == (made.rights, {})
    assert {(one.account, one.name, one.right) for one in made.rights if one.kind == "registered_model"} == {
        ("trainer", "a-candidates", EDIT),
        ("trainer", "a", "READ"),
        ("promoter", "a-candidates", MANAGE),
        ("promoter", "a", MANAGE),
    }

    state = new_state(tmp_path)
    first = state.candidate("news", None)
    sign_in("trainer")
    assert may_promote(server, "a") is False
    assert may_promote(server, "b") is None
    with pytest.raises(RegistryAccountsRefused, match="administrator"):
        set_up(server, "mlflow-artifacts:/lcia", "lcia", "a", **names)
    trainer = Registry(server, "mlflow-artifacts:/lcia", "lcia", "a")
    trainer.follow("learning-1", "news@1", {}, {"loss": [[1, 0.5]]})
    told = apply_outbox(state.db, state.store, trainer)
    assert [(one.kind, one.ok) for one in told] == [("candidate", True)], told

    champion.promote(state.db, state.store, assistant="a", version=1, actor=SYSTEM, policy=AUTO, automatic=True)
    told = apply_outbox(state.db, state.store, trainer)
    assert [(one.kind, one.ok) for one in told] == [("state", True), ("promote", False)]
    assert "Permission denied" in told[-1].message
    assert trainer.champion() is None

    sign_in("promoter")
    assert may_promote(server, "a") is True
    promoter = Registry(server, "mlflow-artifacts:/lcia", "lcia", "a")
    assert [(one.kind, one.ok) for one in apply_outbox(state.db, state.store, promoter)] == [("promote", True)]
    assert promoter.champion() == first.digest

    sign_in("trainer")
    mlflow = client(trainer)
    run = mlflow.get_model_version("a-candidates", "1").run_id
    for attempt in [
        lambda: mlflow.set_registered_model_alias("a", "champion", "1"),
        lambda: mlflow.delete_registered_model_alias("a", "champion"),
        lambda: mlflow.create_model_version("a", source=f"runs:/{run}/assistant", run_id=run),
        lambda: mlflow.copy_model_version("models:/a-candidates/1", "a"),
        lambda: mlflow.set_model_version_tag("a", "1", "digest", "0" * 64),
        lambda: mlflow.update_registered_model("a", "another description"),
        lambda: mlflow.delete_model_version("a", "1"),
        lambda: mlflow.delete_registered_model("a"),
        lambda: mlflow.rename_registered_model("a", "b"),
        lambda: mlflow.delete_model_version("a-candidates", "1"),
    ]:
        with pytest.raises(MlflowException, match=r"(?i)permission.denied"):
            attempt()
    assert trainer.champion() == first.digest

    second = state.candidate("mail", first.digest)
    approvals.reject(state.db, assistant="a", version=2, actor=SITE, reason="no")
    assert all(one.ok for one in apply_outbox(state.db, state.store, trainer))
    sign_in("promoter")
    assert promoter.forget(second.digest) == 1

    os.environ["MLFLOW_TRACKING_PASSWORD"] = wrong = secrets.token_urlsafe(16)
    with pytest.raises(RegistryError) as refused:
        promoter.champion()
    shown = f"{refused.value} {refused.value.__cause__} {caplog.text} {[one.message for one in told]}"
    assert not [word for word in (wrong, *PASSWORDS.values()) if word in shown]
