"""SIGSTOP instead of SIGKILL: a process stands still for longer than its lease, others go on, and it comes back."""

import hashlib
from pathlib import Path

from small_loop import OPS, TASKS, Learnt, SmallLoop, learn, promote
from victim import stopped

from components.audit import log
from components.storage import leases
from lcia.instance import Instance
from lcia.operations import audit, decisions, retention
from lcia.operations import status as status_operations

MOVIE, _, _ = TASKS


def take_over(instance: Instance, name: str) -> None:
    """As if the lease had run out: its holder stands still and is not heard."""
    with instance.db.begin() as connection:
        leases.break_lease(connection, name, force=True)


def test_an_alias_that_was_moved_too_late_is_moved_back(champion: SmallLoop, learnt: Learnt) -> None:
    """Stopped before it has MLflow serve 2; meanwhile 3 was decided and served."""
    with stopped(champion, "rollback", "2", "components.registry.registry:Registry._serve") as go_on:
        instance = champion.open()
        take_over(instance, f"outbox:{instance.assistant}")
        decisions.approve(instance, "3", OPS, "2 was wrong")
        assert _served(instance) == (learnt.digests[2], learnt.digests[2])
        go_on()
        assert _served(instance) == (learnt.digests[2], learnt.digests[2])
    assert status_operations.status(instance)["registry"]["pending"] == 0
    assert audit.verify(instance).ok


def test_a_champion_that_is_not_served_is_noticed_without_sync(champion: SmallLoop, learnt: Learnt) -> None:
    """Stopped, continued and killed before it could look again; or somebody moved the alias by hand."""
    instance = champion.open()
    assert instance.serve_again() == []
    instance.registry.rollback(learnt.digests[0])
    assert _served(instance) == (learnt.digests[0], learnt.digests[2])
    assert instance.serve_again() == []
    assert _served(instance) == (learnt.digests[2], learnt.digests[2])
    with instance.db.read() as connection:
        last = log.entries(connection)[-1]
    assert last.action == "registry.repaired"
    assert learnt.digests[0][:12] in last.details["differences"][0]["words"]
    instance.registry.serve(None)
    assert instance.serve_again() == []
    assert _served(instance) == (learnt.digests[2], learnt.digests[2])
    assert audit.verify(instance).ok


def test_what_mlflow_was_told_to_forget_stays_forgotten(pending: SmallLoop) -> None:
    """Stopped while it publishes; meanwhile the task was withdrawn, and its files left MLflow."""
    promote(pending.open())
    target = "components.registry.registry:Registry.publish_candidate"
    with stopped(pending, "run", TASKS[1], target) as go_on:
        instance = pending.open()
        for name in (f"outbox:{instance.assistant}", f"lineage:{instance.assistant}"):
            take_over(instance, name)
        made = status_operations.status(instance)["candidates"][-1]
        retention.withdraw(instance, f"{TASKS[1]}@1", OPS, "asked for")
        go_on()
        instance.tell_registry(retry=True)
    assert [one.kind for one in instance.registry.differences({}, None) if one.digest == made["digest"]] == []


def test_a_worker_that_stood_still_while_it_learnt_changes_nothing_any_more(fresh: SmallLoop, learnt: Learnt) -> None:
    """Stopped between two checkpoints; meanwhile another worker learnt the task and people made it the champion."""
    with stopped(fresh, "run", MOVIE, "components.storage.objects:Scratch.write", call=2) as go_on:
        instance = fresh.open()
        take_over(instance, f"lineage:{instance.assistant}")
        item = learn(instance, fresh.package(MOVIE))
        assert item["state"] == "candidate"
        assert promote(instance) == learnt.digests[0]
        before = _everything(instance)
        go_on()
        assert _everything(instance) == before
    assert audit.verify(instance).ok


def _everything(instance: Instance) -> dict[str, object]:
    """Rows, log, what MLflow shows and serves, and the objects, each by its digest."""
    status = status_operations.status(instance)
    with instance.db.read() as connection:
        size = log.count(connection)
    folder = Path(instance.settings.storage.objects)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "scratch" not in path.parts)
    client = _mlflow(instance)
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return {
        "queue": status["queue"],
        "candidates": status["candidates"],
        "champion": status["champion"],
        "log": size,
        "objects": [(str(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files],
        "served": _served(instance),
        "runs": sorted((run.info.run_id, run.info.status) for run in runs),
    }


def _mlflow(instance: Instance):
    from mlflow import MlflowClient

    return MlflowClient(instance.settings.registry.tracking_uri, instance.settings.registry.tracking_uri)


def _served(instance: Instance) -> tuple[str | None, str | None]:
    """What MLflow serves, and what the database saw it serve."""
    return instance.registry.champion(), status_operations.status(instance)["champion"]["served"]
