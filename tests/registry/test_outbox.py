"""The outbox against a real MLflow on SQLite: told once or thrice, MLflow shows the same."""

from pathlib import Path

import pytest
from promotion_state import SITE, client
from sqlalchemy import select

from components.audit.log import SYSTEM
from components.promotion import approvals, champion
from components.registry import outbox
from components.registry.outbox import apply_outbox
from components.registry.registry import Registry, RegistryError
from components.settings import ApprovalSettings, PolicySettings
from components.storage import leases, tables

AUTO = PolicySettings(approval=ApprovalSettings(auto=True))


def promote(state, version):
    return champion.promote(
        state.db, state.store, assistant="a", version=version, actor=SYSTEM, policy=AUTO, reason="go", automatic=True
    )


def deliver(state, registry, retry=False):
    return [(done.kind, done.ok) for done in apply_outbox(state.db, state.store, registry, retry=retry)]


def shown(registry):
    """All that people see, without times."""
    mlflow = client(registry)
    versions = [
        (version.name, int(version.version), version.run_id, dict(version.tags), version.source)
        for name in [registry.candidates_name, registry.name]
        for version in mlflow.search_model_versions(f"name = '{name}'")
    ]
    return sorted(versions, key=str), registry.champion()


def test_candidates_promotion_and_rollback_reach_mlflow(state, registry, tmp_path):
    first = state.candidate("news", None)
    assert deliver(state, registry) == [("candidate", True)]
    assert registry.champion() is None
    promote(state, 1)
    second = state.candidate("mail", first.digest, marks=["tuning.seed"])
    promote(state, 2)
    with state.db.read() as connection:
        assert outbox.pending(connection, "a") == 5
    assert deliver(state, registry) == [
        ("state", True),
        ("promote", True),
        ("candidate", True),
        ("state", True),
        ("promote", True),
    ]
    assert deliver(state, registry) == []
    assert registry.champion() == second.digest
    with state.db.read() as connection:
        assert champion.current(connection, "a").served == second.digest
    mlflow = client(registry)
    version = mlflow.get_model_version_by_alias("a", "champion")
    assert version.tags["marks"] == "automatic approval, tuning.seed"
    assert (version.tags["state"], version.tags["epoch"], version.tags["number"]) == ("promoted", "2", "2")
    run = mlflow.get_run(version.run_id)
    assert (run.data.params, run.data.metrics, run.info.status) == ({"steps": "120"}, {"new_acc": 0.75}, "FINISHED")
    import mlflow as package

    package.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    folder = package.artifacts.download_artifacts("models:/a@champion", dst_path=str(tmp_path / "down"))
    bundle = Path(folder) / "artifacts" / "assistant"
    found = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())
    assert found == ["adapters/g1/adapter.bin", "adapters/g1/adapter_config.json", "manifest.json"]
    assert (bundle / "manifest.json").read_bytes() == state.store.get(second.digest)
    assert not list(Path(folder).rglob("*.pkl"))

    champion.rollback(state.db, state.store, assistant="a", version=1, actor=SITE, reason="worse")
    assert deliver(state, registry) == [("rollback", True)]
    assert registry.champion() == first.digest
    assert int(mlflow.get_model_version_by_alias("a", "champion").version) == 1


def test_telling_everything_again_changes_nothing(state, registry):
    first = state.candidate("news", None)
    promote(state, 1)
    state.candidate("mail", first.digest)
    approvals.reject(state.db, assistant="a", version=2, actor=SITE, reason="no")
    deliver(state, registry)
    before = shown(registry)
    with state.db.begin() as connection:
        connection.execute(tables.outbox.update().values(done_at=None))
    assert all(ok for _, ok in deliver(state, registry))
    assert shown(registry) == before
    assert [tags["state"] for name, _, _, tags, _ in before[0] if name == "a-candidates"] == ["promoted", "rejected"]


def test_a_crash_between_two_steps_is_mended(state, registry, tmp_path):
    candidate = state.candidate("news", None)
    mlflow = client(registry)
    experiment = registry._experiment_id(mlflow)
    left = mlflow.create_run(experiment, tags={"digest": candidate.digest})
    assert deliver(state, registry) == [("candidate", True)]
    # a run that was begun is gone on with
    assert mlflow.get_model_version("a-candidates", "1").run_id == left.info.run_id
    assert mlflow.get_run(left.info.run_id).info.status == "FINISHED"
    # a finished run without its version is used, not made again
    run = mlflow.get_model_version("a-candidates", "1").run_id
    mlflow.delete_model_version("a-candidates", "1")
    (tmp_path / "again" / "assistant").mkdir(parents=True)
    registry.publish_candidate({"digest": candidate.digest, "number": 1}, tmp_path / "again")
    assert [v.run_id for v in mlflow.search_model_versions("name = 'a-candidates'")] == [run]
    # a copy without the alias gets the alias
    mlflow.copy_model_version("models:/a-candidates/2", "a")
    promote(state, 1)
    assert all(ok for _, ok in deliver(state, registry))
    assert registry.champion() == candidate.digest
    assert len(mlflow.search_model_versions("name = 'a'")) == 1


def test_failures_are_recorded_and_retried_in_order(state, registry, tmp_path):
    first = state.candidate("news", None)
    promote(state, 1)
    away = Registry(f"sqlite:///{tmp_path}/no/such/folder/mlflow.db", "x", "lcia", "a")
    (tmp_path / "no").write_text("a file, so the folder can't be made")
    done = apply_outbox(state.db, state.store, away)
    assert [(one.kind, one.ok) for one in done] == [("candidate", False)]
    assert "Nothing is lost" in done[0].message
    with state.db.read() as connection:
        row = connection.execute(select(tables.outbox).order_by(tables.outbox.c.id)).first()
        assert (row.attempts, row.done_at, row.error) == (1, None, done[0].message)
        assert champion.current(connection, "a").version == first.digest
        assert champion.current(connection, "a").served is None
    state.damage(state.store.get_json(first.evidence)["reports"]["gate"])
    assert deliver(state, registry) == [("candidate", False)]
    state.damage(state.store.get_json(first.evidence)["reports"]["gate"])
    assert deliver(state, registry) == [], "what was refused is not tried again at once"
    assert deliver(state, registry, retry=True) == [("candidate", True), ("state", True), ("promote", True)]
    with state.db.read() as connection:
        row = connection.execute(select(tables.outbox).order_by(tables.outbox.c.id)).first()
        assert (row.attempts, row.error) == (3, None)
        assert outbox.pending(connection, "a") == 0


def test_one_process_delivers_at_a_time(state, registry):
    state.candidate("news", None)
    lease = leases.acquire(state.db, "outbox:a", "somebody", 60)
    assert deliver(state, registry) == []
    leases.release(state.db, lease)
    assert deliver(state, registry) == [("candidate", True)]


def test_what_was_never_published_cannot_be_promoted(registry):
    with pytest.raises(RegistryError, match="has no version"):
        registry.promote("0" * 64)
    with pytest.raises(RegistryError, match="has no version"):
        registry.tag("0" * 64, {"state": "x"})
    assert registry.champion() is None
