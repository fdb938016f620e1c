"""SIGKILL in the middle of tuning, evaluation, registration and promotion: run again, and all is as if undisturbed."""

import json
from typing import Any

import pytest
from small_loop import OPS, SITE, TASKS, Learnt, SmallLoop, learn, promote
from victim import Kill, killed
from zenml.client import Client

from components.audit.log import rows
from lcia import auditing, verbs, worker
from lcia.workplace import Workplace

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
    killed(fresh, "run", MOVIE, Kill("components.promotion.registry:Registry.publish_candidate", after=True))
    place = fresh.open()
    assert verbs.status(place)["registry"]["pending"] == 1
    item = learn(place, fresh.package(MOVIE))
    assert (item["state"], item["attempts"]) == ("candidate", 1)
    runs = Client().list_pipeline_runs(size=50).items
    assert {run.status.value for run in runs} == {"failed", "completed"}, "none is running for ever"
    assert promote(place) == learnt.digests[0]
    _as_undisturbed(place, learnt, 1)


def test_killed_while_a_group_learns_again(learnt: Learnt, pending: SmallLoop) -> None:
    """The EMA and the curvature are in the checkpoint too."""
    promote(pending.open())
    killed(pending, "run", PRODUCT, Kill("components.storage.objects:Scratch.write", call=2, after=True))
    place = pending.open()
    assert [item.state for item in worker.work(place, SITE, print)] == ["candidate"]
    assert promote(place) == learnt.digests[1]
    _as_undisturbed(place, learnt, 2)


def test_killed_while_promoting(learnt: Learnt, pending: SmallLoop) -> None:
    killed(pending, "approve", "1", Kill("components.promotion.champion:_swap", after=True))
    place = pending.open()
    assert place.champion() is None
    assert _served(place) is None
    killed(pending, "approve", "1", Kill("components.promotion.outbox:_deliver"))
    champion = verbs.status(place)["champion"]
    assert (champion["digest"], champion["served"]) == (learnt.digests[0], None)
    assert _served(place) is None
    killed(pending, "approve", "1", Kill("components.promotion.registry:Registry._serve"))
    assert _served(place) is None
    killed(pending, "approve", "1", Kill("components.promotion.registry:Registry.promote", after=True))
    assert _served(place) == learnt.digests[0]
    assert verbs.status(place)["champion"]["served"] is None
    _, made = verbs.approve(place, "1", OPS, "again")
    assert made is not None
    assert (made.known, made.epoch) == (True, 1)
    _as_undisturbed(place, learnt, 1)


def test_what_a_kill_left_untold_is_told_by_the_next_work(learnt: Learnt, pending: SmallLoop) -> None:
    killed(pending, "approve", "1", Kill("components.promotion.outbox:_deliver"))
    place = pending.open()
    assert worker.work(place, SITE, print) == []
    _as_undisturbed(place, learnt, 1)


@pytest.mark.parametrize(
    ("kill", "decided"),
    [
        (Kill("components.promotion.champion:_swap", after=True), False),
        (Kill("components.promotion.registry:Registry.rollback"), True),
    ],
)
def test_killed_while_rolling_back(learnt: Learnt, champion: SmallLoop, kill: Kill, decided: bool) -> None:
    killed(champion, "rollback", "1", kill)
    place = champion.open()
    assert verbs.status(place)["champion"]["version"] == (1 if decided else 3)
    assert _served(place) == learnt.digests[-1]
    if decided:
        worker.work(place, SITE, print)
    else:
        verbs.rollback(place, "1", OPS, "went wrong")
    assert verbs.status(place)["champion"]["served"] == _served(place) == learnt.digests[0]
    assert auditing.verify(place).ok


def _nothing_was_decided(loop: SmallLoop, state: str) -> None:
    place = loop.open()
    status = verbs.status(place)
    assert status["champion"] is None
    assert status["candidates"] == []
    assert [item["state"] for item in status["queue"]["items"]] == [state]
    assert auditing.verify(place).ok


def _as_undisturbed(place: Workplace, learnt: Learnt, count: int) -> None:
    """Champion, rows, evidence and registry as in the loop that nobody killed."""
    status, calm = verbs.status(place), verbs.status(learnt.loop.open())
    champion = status["champion"]
    assert champion["digest"] == champion["served"] == learnt.digests[count - 1] == _served(place)
    assert [c["digest"] for c in status["candidates"]] == learnt.digests[:count]
    assert [_told(c) for c in status["candidates"]] == [_told(c) for c in calm["candidates"][:count]]
    for ours, theirs in zip(status["candidates"], calm["candidates"], strict=False):
        assert _evidence(place, ours["evidence"]) == _evidence(learnt.loop.open(), theirs["evidence"])
    assert status["registry"] == {"pending": 0, "parked": [], "moved": None, "empty": False, "links": []}
    assert auditing.verify(place).ok
    for model in ("assistant-candidates", "assistant"):
        versions = _mlflow(place).search_model_versions(f"name = '{model}'")
        assert sorted(version.tags["digest"] for version in versions) == sorted(learnt.digests[:count])
    actions = [entry["action"] for entry in _log(place)]
    assert actions.count("candidate.registered") == count
    assert actions.count("champion.promoted") == count
    assert actions.count("candidate.approved") == count


def _told(candidate: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in candidate.items() if name != "evidence" and not name.endswith("_at")}


def _evidence(place: Workplace, digest: str) -> dict[str, Any]:
    """All but Evidently's page, which is not the same in every process, and the records that name it."""
    record = place.store.get_json(digest)
    reports = {name: report for name, report in record["reports"].items() if name != "evidently"}
    return {**record, "reports": reports, "assessment": None}


def _log(place: Workplace) -> list[dict[str, Any]]:
    with place.db.read() as connection:
        return [json.loads(row.body) for row in rows(connection)]


def _served(place: Workplace) -> str | None:
    return place.registry.champion()


def _mlflow(place: Workplace) -> Any:
    from mlflow.tracking import MlflowClient

    uri = place.settings.registry.tracking_uri
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
