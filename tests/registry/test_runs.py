"""MLflow runs, on a real MLflow: a run is shown while it learns, and the candidate's run goes on from it."""

import json
from pathlib import Path

import pytest
from promotion_state import client

from components.registry.registry import Registry

KEY, DIGEST, TASK = "k" * 64, "d" * 64, {"task": "news@1"}


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    """A folder without artifacts."""
    (tmp_path / "nothing").mkdir()
    return tmp_path / "nothing"


def curve(steps: int) -> list[tuple[int, float]]:
    return [(step, 1 / step) for step in range(1, steps + 1)]


def points(registry: Registry, run: str, name: str) -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in client(registry).get_metric_history(run, name)]


def runs(registry: Registry) -> list:
    mlflow = client(registry)
    return mlflow.search_runs([registry._experiment_id(mlflow)])


def publication(**more: object) -> dict:
    return {"digest": DIGEST, "number": 7, "tags": TASK, "curves": {"loss": curve(30), "beta": [(2, 0.5)]}, **more}


def test_each_look_adds_what_the_curves_gained(registry: Registry) -> None:
    for steps in (10, 10, 25):
        registry.follow(KEY, "a: news@1", TASK, {"loss": curve(steps)})
    (run,) = runs(registry)
    assert points(registry, run.info.run_id, "loss") == curve(25)
    assert (run.info.status, run.info.run_name, run.data.tags["state"]) == ("RUNNING", "a: news@1", "learning")


def test_the_candidates_run_goes_on_from_what_was_shown(registry: Registry, nothing: Path) -> None:
    registry.follow(KEY, "a: news@1", TASK, {"loss": curve(20)})
    (before,) = runs(registry)
    tags = {**TASK, "state": "pending"}
    for _ in range(2):
        registry.publish_candidate(publication(learning=KEY, tags=tags), nothing)
    (run,) = runs(registry)
    assert run.info.run_id == before.info.run_id
    assert (run.info.status, run.info.run_name, run.data.tags["state"]) == ("FINISHED", "a v7", "pending")
    assert "learning" not in run.data.tags
    assert points(registry, run.info.run_id, "loss") == curve(30)
    assert points(registry, run.info.run_id, "beta") == [(2, 0.5)]


def test_the_run_says_what_became_of_the_version(registry: Registry, nothing: Path) -> None:
    registry.publish_candidate(publication(tags={"state": "pending"}), nothing)
    registry.tag(DIGEST, {"state": "rejected"})
    assert [run.data.tags["state"] for run in runs(registry)] == ["rejected"]


def test_a_run_that_ended_is_not_gone_on_with(registry: Registry, nothing: Path) -> None:
    registry.follow(KEY, "a: news@1", TASK, {"loss": curve(20)})
    registry.unfollow(KEY, "the loss is not finite at step 21")
    registry.publish_candidate(publication(learning=KEY), nothing)
    made, failed = sorted(runs(registry), key=lambda run: run.info.status == "FAILED")
    assert failed.info.status == "FAILED"
    assert "not finite" in failed.data.tags["mlflow.note.content"]
    assert points(registry, made.info.run_id, "loss") == curve(30)


def test_more_points_than_mlflow_takes_at_once(registry: Registry, nothing: Path) -> None:
    registry.publish_candidate(publication(curves={"loss": curve(2345)}), nothing)
    (run,) = runs(registry)
    assert points(registry, run.info.run_id, "loss") == curve(2345)


@pytest.mark.parametrize("rows", [{"rows": 600}, {}])
def test_data_sets_are_named_by_digest(registry: Registry, nothing: Path, rows: dict[str, int]) -> None:
    named = {"name": "news@1", "digest": "e" * 64, "context": "train", "source": "t" * 64, **rows}
    registry.publish_candidate(publication(datasets=[named]), nothing)
    (run,) = runs(registry)
    (seen,) = run.inputs.dataset_inputs
    assert (seen.dataset.name, seen.dataset.digest) == ("news@1", "e" * 36)
    assert json.loads(seen.dataset.source) == {"object": "e" * 64, "task": "t" * 64}
    assert json.loads(seen.dataset.profile or "{}").get("num_rows") == rows.get("rows")
    assert [(tag.key, tag.value) for tag in seen.tags] == [("mlflow.data.context", "train")]
