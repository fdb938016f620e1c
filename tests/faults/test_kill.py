"""SIGKILL in the middle of tuning, evaluation, registration and promotion: run again, and all is as if undisturbed."""

import json
from typing import Any

import pytest
from small_loop import OPS, SITE, TASKS, Learnt, SmallLoop, learn, promote
from victim import Kill, killed
from zenml.client import Client

from components.audit.log import rows
from lcia.instance import Instance
from lcia.operations import audit, decisions
from lcia.operations import status as status_operations
from lcia.worker import loop as worker

MOVIE, PRODUCT, _ = TASKS


def test_killed_while_a_new_group_learns(fresh: SmallLoop, learnt: Learnt) -> None:
    killed(fresh, "run", MOVIE, Kill("components.storage.objects:Scratch.write", after=True))
    assert list((fresh.home / "objects" / "scratch").rglob("checkpoint.safetensors")), "there is a checkpoint"
    _nothing_was_decided(fresh, "learning")
    killed(fresh, "run", MOVIE, Kill("components.storage.objects:Scratch.write", call=7, after=True))
    finished = list((fresh.home / "objects" / "scratch").rglob("predicted-*.json"))
    assert len(finished) == 3, "two checkpoints of two files each, then these"
    _nothing_was_decided(fresh, "learning")
    killed(fresh, "run", MOVIE, Kill("components.promotion.candidates:register", after=True))
    _nothing_was_decided(fresh, "learning")
    killed(fresh, "run", MOVIE, Kill("components.registry.registry:Registry.publish_candidate", after=True))
    instance = fresh.open()
    assert status_operations.status(instance)["registry"]["pending"] == 1
    item = learn(instance, fresh.package(MOVIE))
    assert (item["state"], item["attempts"]) == ("candidate", 1)
    runs = Client().list_pipeline_runs(size=50).items
    assert {run.status.value for run in runs} == {"failed", "completed"}, "none is running for ever"
    assert promote(instance) == learnt.digests[0]
    _as_undisturbed(instance, learnt, 1)


def test_killed_while_a_group_learns_again(learnt: Learnt, pending: SmallLoop) -> None:
    """The EMA and the curvature are in the checkpoint too."""
    promote(pending.open())
    killed(pending, "run", PRODUCT, Kill("components.storage.objects:Scratch.write", call=2, after=True))
    instance = pending.open()
    assert [item.state for item in worker.work(instance, SITE, print)] == ["candidate"]
    assert promote(instance) == learnt.digests[1]
    _as_undisturbed(instance, learnt, 2)


def test_killed_while_promoting(learnt: Learnt, pending: SmallLoop) -> None:
    killed(pending, "approve", "1", Kill("components.promotion.champion:_swap", after=True))
    instance = pending.open()
    assert instance.champion() is None
    assert _served(instance) is None
    killed(pending, "approve", "1", Kill("components.registry.outbox:_deliver"))
    champion = status_operations.status(instance)["champion"]
    assert (champion["digest"], champion["served"]) == (learnt.digests[0], None)
    assert _served(instance) is None
    killed(pending, "approve", "1", Kill("components.registry.registry:Registry._serve"))
    assert _served(instance) is None
    killed(pending, "approve", "1", Kill("components.registry.registry:Registry.promote", after=True))
    assert _served(instance) == learnt.digests[0]
    assert status_operations.status(instance)["champion"]["served"] is None
    answer = decisions.approve(instance, "1", OPS, "again")
    assert (answer["known"], answer["epoch"]) == (True, 1)
    _as_undisturbed(instance, learnt, 1)


def test_what_a_kill_left_untold_is_told_by_the_next_work(learnt: Learnt, pending: SmallLoop) -> None:
    killed(pending, "approve", "1", Kill("components.registry.outbox:_deliver"))
    instance = pending.open()
    assert worker.work(instance, SITE, print) == []
    _as_undisturbed(instance, learnt, 1)


@pytest.mark.parametrize(
    ("kill", "decided"),
    [
        (Kill("components.promotion.champion:_swap", after=True), False),
        (Kill("components.registry.registry:Registry.rollback"), True),
    ],
)
def test_killed_while_rolling_back(learnt: Learnt, champion: SmallLoop, kill: Kill, decided: bool) -> None:
    killed(champion, "rollback", "1", kill)
    instance = champion.open()
    assert status_operations.status(instance)["champion"]["version"] == (1 if decided else 3)
    assert _served(instance) == learnt.digests[-1]
    if decided:
        worker.work(instance, SITE, print)
    else:
        decisions.rollback(instance, "1", OPS, "went wrong")
    assert status_operations.status(instance)["champion"]["served"] == _served(instance) == learnt.digests[0]
    assert audit.verify(instance).ok


def _nothing_was_decided(loop: SmallLoop, state: str) -> None:
    instance = loop.open()
    status = status_operations.status(instance)
    assert status["champion"] is None
    assert status["candidates"] == []
    assert [item["state"] for item in status["queue"]["items"]] == [state]
    assert audit.verify(instance).ok


def _as_undisturbed(instance: Instance, learnt: Learnt, count: int) -> None:
    """Champion, rows, evidence and registry as in the loop that nobody killed."""
    status, calm = status_operations.status(instance), status_operations.status(learnt.loop.open())
    champion = status["champion"]
    assert champion["digest"] == champion["served"] == learnt.digests[count - 1] == _served(instance)
    assert [c["digest"] for c in status["candidates"]] == learnt.digests[:count]
    assert [_told(c) for c in status["candidates"]] == [_told(c) for c in calm["candidates"][:count]]
    for ours, theirs in zip(status["candidates"], calm["candidates"], strict=False):
        assert _evidence(instance, ours["evidence"]) == _evidence(learnt.loop.open(), theirs["evidence"])
    assert status["registry"] == {"pending": 0, "parked": [], "moved": None, "empty": False, "links": []}
    assert audit.verify(instance).ok
    for model in ("assistant-candidates", "assistant"):
        versions = _mlflow(instance).search_model_versions(f"name = '{model}'")
        assert sorted(version.tags["digest"] for version in versions) == sorted(learnt.digests[:count])
    actions = [entry["action"] for entry in _log(instance)]
    assert actions.count("candidate.registered") == count
    assert actions.count("champion.promoted") == count
    assert actions.count("candidate.approved") == count


def _told(candidate: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in candidate.items() if name != "evidence" and not name.endswith("_at")}


def _evidence(instance: Instance, digest: str) -> dict[str, Any]:
    """All but Evidently's page, which is not the same in every process, and the records that name it."""
    record = instance.store.get_json(digest)
    reports = {name: report for name, report in record["reports"].items() if name != "evidently"}
    return {**record, "reports": reports, "assessment": None}


def _log(instance: Instance) -> list[dict[str, Any]]:
    with instance.db.read() as connection:
        return [json.loads(row.body) for row in rows(connection)]


def _served(instance: Instance) -> str | None:
    return instance.registry.champion()


def _mlflow(instance: Instance) -> Any:
    from mlflow.tracking import MlflowClient

    uri = instance.settings.registry.tracking_uri
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
