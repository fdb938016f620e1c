"""The whole loop in one process, on ZenML's local stack, MLflow on SQLite and a tiny real model."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_loop import OPS, SITE, TASKS, Learnt, SmallLoop, learn, promote, write_package

import components.tuning.task
from components.grouping.router import Router
from components.model.adapters import config_of
from components.registry.registry import ALIAS
from components.tasks import queue
from lcia.inference import ask
from lcia.instance import Instance
from lcia.operations import audit, decisions, figures, tasks, versions
from lcia.operations import status as status_operations
from lcia.worker import loop as worker

MOVIE, PRODUCT, PASSIVE = TASKS


def test_like_instructions_share_a_group(learnt: Learnt) -> None:
    status = status_operations.status(learnt.loop.open())
    champion = status["champion"]
    groups = {group["id"]: group["tasks"] for group in champion["groups"]}
    assert groups == {"g1": [MOVIE, PRODUCT], "g2": [PASSIVE]}
    assert champion["version"] == 3
    assert champion["tasks"] == list(TASKS)
    assert champion["digest"] == champion["served"] == learnt.digests[-1]
    assert [c["state"] for c in status["candidates"]] == ["promoted"] * 3
    assert [c["parent"] for c in status["candidates"]] == [None, *learnt.digests[:2]]
    assert status["registry"] == {"pending": 0, "parked": [], "moved": None, "empty": False, "links": []}
    assert audit.verify(learnt.loop.open()).ok


def test_settings_that_were_changed_mark_the_version(learnt: Learnt) -> None:
    instance = learnt.loop.open()
    assert "changed policy.gate.enforce" in status_operations.status(instance)["champion"]["marks"]
    manifest = instance.store.get_json(learnt.digests[-1])
    assert "policy.gate.enforce" in manifest["overrides"]
    assert manifest["assurance"] == "asserted"


def test_matrix_is_lower_triangular(learnt: Learnt) -> None:
    instance = learnt.loop.open()
    matrix = figures.matrix(instance)
    rows = matrix["matrix"]
    assert matrix["tasks"] == list(TASKS)
    assert [[cell is None for cell in row] for row in rows] == [[False, True, True], [False, False, True], [False] * 3]
    assert all(0 <= cell <= 1 for row in rows for cell in row if cell is not None)
    assert matrix["avg_acc"] == pytest.approx(sum(rows[-1]) / 3)
    assert matrix["new_acc"] == pytest.approx(sum(rows[i][i] for i in range(3)) / 3)
    assert matrix["bwt"] == pytest.approx(sum(rows[-1][i] - rows[i][i] for i in range(2)) / 2)
    assert rows[0][0] > 0, "the labels are chosen, some of them rightly"
    assert len(figures.matrix(instance, "2")["tasks"]) == 2


def test_predictions_of_an_untouched_group_are_carried_over_by_key(learnt: Learnt) -> None:
    instance = learnt.loop.open()
    before, after = (instance.store.get_json(digest) for digest in instance.lineage(learnt.digests[2])[1:])
    for name in (MOVIE, PRODUCT):
        assert after["predictions"][name] == before["predictions"][name], "the very same object"
        assert sum(after["proofs"][name]["from"].values()) == len(_rows(instance, after, name))
        assert all(row["group"] == "g1" for row in _rows(instance, after, name))
    assert not any(row["from"] for row in _rows(instance, after, PASSIVE))
    assert after["recheck"]["rows"] == 2
    gate = versions.show(instance, "3")["gate"]
    proven = [row for row in gate["rows"] if row["task"] in (MOVIE, PRODUCT) and row["rule"] != "routing"]
    assert proven, "the gate names the unchanged tasks"
    assert not any(row["verdict"] == "fail" for row in proven)


def test_a_changed_adapter_changes_every_key(learnt: Learnt) -> None:
    instance = learnt.loop.open()
    before, after = (instance.store.get_json(digest) for digest in instance.lineage(learnt.digests[1]))
    old, new = _rows(instance, before, MOVIE), _rows(instance, after, MOVIE)
    assert not {row["key"] for row in old} & {row["key"] for row in new}
    assert not any(row["from"] for row in new)


def test_mlflow_shows_candidates_and_the_champion(learnt: Learnt) -> None:
    client = _mlflow(learnt.loop.open())
    offered = client.search_model_versions("name = 'assistant-candidates'")
    assert sorted(int(version.version) for version in offered) == [1, 2, 3]
    assert {version.tags["digest"] for version in offered} == set(learnt.digests)
    assert {version.tags["state"] for version in offered} == {"promoted"}
    served = client.get_model_version_by_alias("assistant", ALIAS)
    assert served.tags["digest"] == learnt.digests[-1]
    run = client.get_run(next(v.run_id for v in offered if v.tags["digest"] == learnt.digests[-1]))
    assert run.data.params["task"] == "passive_voice@1"
    assert {"avg_acc", "acc/movie_sentiment", "cost/carried_over"} <= set(run.data.metrics)
    shown = {file.path for file in client.list_artifacts(run.info.run_id, "reports")}
    assert {"reports/gate.html", "reports/evaluation.html", "reports/heat_map.png", "reports/card.md"} <= shown
    bundle = "assistant/artifacts/assistant/adapters"
    model = {file.path for file in client.list_artifacts(run.info.run_id, bundle)}
    assert model == {f"{bundle}/g1", f"{bundle}/g2"}


def test_reports_lie_in_zenml_and_name_no_outside_address(learnt: Learnt) -> None:
    from zenml.client import Client

    learnt.loop.enter()
    reports: dict[str, list[str]] = {}
    for run in Client().list_pipeline_runs(size=50).items:
        assert run.status == "completed"
        for step in run.steps.values():
            for name, artifacts in step.outputs.items():
                if name.endswith("_report"):
                    reports.setdefault(name, []).append(str(artifacts[0].load()))
    ours = {"validation_report", "drift_report", "grouping_report", "tuning_report", "evaluation_report", "gate_report"}
    assert set(reports) == ours | {"evidently_report"}
    for name in ours:
        assert len(reports[name]) == 3
        for html in reports[name]:
            assert "<html" in html.lower()
            assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", html, re.IGNORECASE), name
            assert not re.search(r"""@import|url\(\s*["']?\s*(?:https?:)?//""", html, re.IGNORECASE), name


def test_zenml_shows_what_each_step_found(learnt: Learnt) -> None:
    from zenml.client import Client

    learnt.loop.enter()
    run = Client().list_pipeline_runs(name="startswith:learn_task", sort_by="desc:created", size=1).items[0]
    seen = {name: step.run_metadata for name, step in run.steps.items()}
    assert seen["tune"]["steps"] == 6
    assert seen["gate"]["verdict"] in ("pass", "fail", "inconclusive")
    assert set(seen["evaluate_forgetting"]["scores"]) == set(TASKS)
    assert run.run_metadata["version"] == learnt.digests[-1] == seen["register_candidate"]["version"]
    run = Client().list_pipeline_runs(name="startswith:assess_task", sort_by="desc:created", size=1).items[0]
    seen = {name: step.run_metadata for name, step in run.steps.items()}
    assert seen["ingest_task"]["task"] == "passive_voice@1"
    assert (seen["validate_data"]["verdict"], seen["validate_data"]["rows_set_aside"]) == ("pass", 0)
    assert seen["check_drift"]["verdict"] == "new"
    assert seen["group_instructions"]["verdict"] == "learn"


def test_telemetry_is_off_for_whoever_uses_the_same_folder(learnt: Learnt) -> None:
    kept = yaml.safe_load((learnt.loop.home / "zenml" / "config.yaml").read_text(encoding="utf-8"))
    assert kept["analytics_opt_in"] is False
    assert kept["store"]["type"] == "sql"


def test_everything_again_changes_nothing(learnt: Learnt, tmp_path: Path) -> None:
    loop = learnt.loop.copy(tmp_path)
    instance = loop.open()
    before = status_operations.status(instance)
    for name in TASKS:
        item = tasks.submit(instance, loop.package(name), SITE)
        assert item.known
        assert worker.work(instance, SITE, print, item.id) == []
    assert worker.work(instance, SITE, print) == []
    assert instance.tell_registry() == []
    assert status_operations.status(instance) == before


def test_rollback_is_followed_by_status_matrix_and_mlflow(learnt: Learnt, tmp_path: Path) -> None:
    instance = learnt.loop.copy(tmp_path).open()
    made = decisions.rollback(instance, "1", OPS, "product reviews went wrong")
    assert (made["epoch"], made["version"], made["kind"]) == (4, learnt.digests[0], "rollback")
    champion = status_operations.status(instance)["champion"]
    assert (champion["version"], champion["served"]) == (1, learnt.digests[0])
    assert champion["tasks"] == [MOVIE]
    assert figures.matrix(instance)["tasks"] == [MOVIE]
    assert _mlflow(instance).get_model_version_by_alias("assistant", ALIAS).tags["digest"] == learnt.digests[0]
    assert audit.verify(instance).ok


def test_a_task_waits_where_nothing_is_learnt_on_what_is_undecided_and_goes_on_after(
    learnt: Learnt, tmp_path: Path
) -> None:
    loop = learnt.pending.copy(tmp_path)
    instance = loop.open("train.longest=1")
    waiting = learn(instance, loop.package(PRODUCT))
    assert waiting["state"] == "waiting"
    assert waiting["reason"] == "version 1 (movie_sentiment@1) waits for people to decide"
    entries = status_operations.status(instance)["audit"]["entries"]
    assert worker.work(instance, SITE, print) == []
    assert status_operations.status(instance)["audit"]["entries"] == entries, "looking again costs nothing"
    assert promote(instance) == learnt.digests[0]
    [item] = worker.work(instance, SITE, print)
    assert item.state == "candidate"
    assert promote(instance) == learnt.digests[1], "having waited makes no other version"


def test_a_rejected_candidate_lets_the_next_task_go_on_without_it(learnt: Learnt, tmp_path: Path) -> None:
    loop = learnt.pending.copy(tmp_path)
    instance = loop.open()
    decisions.reject(instance, "1", OPS, "no")
    assert learn(instance, loop.package(PRODUCT))["state"] == "candidate"
    second = instance.version("2")
    assert second is not None
    assert second.parent is None
    assert [g.id for g in instance.pool(second.digest).groups] == ["g1"]


def test_the_plain_baseline_runs_and_is_marked(learnt: Learnt, tmp_path: Path) -> None:
    """Plain LoRA without rehearsal, one group for all: what the product is measured against."""
    plain = ("tuning.ema.rule=none", "tuning.rehearsal.share=0", "grouping.rule=single")
    loop = learnt.pending.copy(tmp_path)
    instance = loop.open(*plain)
    promote(instance)
    assert learn(instance, loop.package(PASSIVE))["state"] == "candidate"
    shown = versions.show(instance, "2")
    assert shown["groups"] == [{"id": "g1", "tasks": [MOVIE, PASSIVE]}]
    assert (shown["tuning"]["rule"], shown["tuning"]["rehearsed_rows"]) == ("none", 0)
    assert shown["chosen"]["point"] == "live"
    assert {f"changed {key.partition('=')[0]}" for key in plain} <= set(shown["version"]["marks"])


def test_a_diverging_run_harms_nothing_and_can_be_retried(
    learnt: Learnt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = learnt.loop.copy(tmp_path)
    before = status_operations.status(loop.open())
    instance = loop.open("tuning.learning_rate=1e30", "tuning.ema.rule=none")
    failed = learn(instance, write_package(tmp_path / "more", MOVIE, first=40, version="2"))
    assert failed["state"] == "failed"
    assert failed["reason"].startswith("the loss is not finite at step ")
    said = capsys.readouterr()
    assert f"  failed: {failed['reason']}\n" in said.out
    assert "Traceback" not in said.out + said.err
    _unharmed(instance, before)
    instance = loop.open()
    with instance.db.begin() as connection:
        queue.move(connection, None, failed["id"], "submitted", "tried again", actor=SITE)
    [item] = worker.work(instance, SITE, print)
    assert (item.state, item.attempts) == ("candidate", 2)
    [candidate] = [c for c in status_operations.status(instance)["candidates"] if c["state"] == "pending"]
    assert (candidate["task_name"], candidate["parent"]) == ("movie_sentiment@2", learnt.digests[-1])


def test_too_many_fallbacks_of_the_ema_fail_the_run(learnt: Learnt, tmp_path: Path) -> None:
    loop = learnt.loop.copy(tmp_path)
    before = status_operations.status(loop.open())
    instance = loop.open("tuning.ema.rule=paper", "tuning.ema.max_fallback=0")
    failed = learn(instance, write_package(tmp_path / "more", MOVIE, first=40, version="2"))
    assert failed["state"] == "failed"
    assert "fell back to a fixed beta, more than tuning.ema.max_fallback" in failed["reason"]
    assert "\n" not in failed["reason"]
    _unharmed(instance, before)


def test_an_altered_object_fails_the_evaluation_and_finished_tuning_is_kept(
    learnt: Learnt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = learnt.loop.copy(tmp_path)
    instance = loop.open()
    before = status_operations.status(instance)
    digest = instance.store.get_json(instance.lineage(learnt.digests[-1])[-1])["predictions"][MOVIE]
    stored = loop.home / "objects" / "sha256" / digest[:2] / digest
    good = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(good.replace(b'"score":0', b'"score":1', 1))
    failed = learn(instance, write_package(tmp_path / "more", PASSIVE, first=40, version="2"))
    assert failed["state"] == "failed"
    assert digest in failed["reason"]
    _unharmed(instance, before)
    stored.write_bytes(good)
    with instance.db.begin() as connection:
        queue.move(connection, None, failed["id"], "submitted", "object restored", actor=SITE)
    monkeypatch.setattr(components.tuning.task, "tune_task", None)  # must not be called again
    [item] = worker.work(instance, SITE, print)
    assert item.state == "candidate"


def _unharmed(instance: Instance, before: dict[str, Any]) -> None:
    after = status_operations.status(instance)
    assert after["champion"] == before["champion"]
    assert after["candidates"] == before["candidates"]
    assert after["registry"] == {"pending": 0, "parked": [], "moved": None, "empty": False, "links": []}
    assert audit.verify(instance).ok


def _rows(instance: Instance, evaluation: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = instance.store.get_json(evaluation["predictions"][name])["rows"]
    return rows


def _mlflow(instance: Instance) -> Any:
    from mlflow.tracking import MlflowClient

    uri = instance.settings.registry.tracking_uri
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_groups_of_fewer_layers_go_on_under_the_deeper_default(pending: SmallLoop) -> None:
    """Versions of the release before have adapters on fewer layers, here one, than `auto` takes, here all four."""
    promote(pending.open())
    instance = pending.open("adapter.top_layers=auto")

    def layers(group: str) -> list[int]:
        adapter = instance.pool(champion).group(group).adapter
        return list(config_of(instance.store, adapter)["layers_to_transform"])

    learn(instance, pending.package(PASSIVE))
    champion = promote(instance)
    assert (layers("g1"), layers("g2")) == ([3], [0, 1, 2, 3])
    before, after = (instance.store.get_json(digest) for digest in instance.lineage(champion)[-2:])
    assert after["predictions"][MOVIE] == before["predictions"][MOVIE], "carried over by key"
    assert after["recheck"]["rows"] == 2
    learn(instance, pending.package(PRODUCT))
    champion = promote(instance)
    assert layers("g1") == [0, 1, 2, 3]
    question = "Decide whether the film review snippet is positive or negative."
    answers = [ask.ask(instance, question, "I liked it.", version, base=False) for version in (None, "1", "2")]
    assert [(answer["version"], answer["group"]) for answer in answers] == [(3, "g1"), (1, "g1"), (2, "g1")]


def test_replaced_tasks_are_left_out_of_tuning_and_choice_and_lose_their_instructions(champion: SmallLoop) -> None:
    """One is replaced by the package that is learnt, one by a person's declaration; both shared the group."""
    instance = champion.open("quality.known.rows=0")
    tasks.supersede(instance, OPS, f"{PRODUCT}@1", f"{PASSIVE}@1", "the site asks no more")
    package = write_package(champion.packages / "new", MOVIE, first=40, version="2", supersedes=f"{MOVIE}@1")
    item = learn(instance, package)
    assert item["state"] == "candidate", item["reason"]
    shown = versions.show(instance, "4")
    store, evidence = instance.store, shown["evidence"]
    tuning, evaluation = (store.get_json(evidence[step]) for step in ("tuning", "evaluation"))
    assert (tuning["group"], tuning["rehearsed_rows"], tuning["recalled_rows"]) == ("g1", 0, 0)
    assert evaluation["before"] == {}
    assert evaluation["scores"].keys() == {*TASKS, f"{MOVIE}@2"}, "they are shown all the same"
    replaced = {row["task"]: row["superseded_by"] for row in shown["gate"]["rows"] if row["rule"] == "superseded"}
    assert replaced == {MOVIE: f"{MOVIE}@2", PRODUCT: f"{PASSIVE}@1"}
    pool = instance.pool(shown["version"]["digest"])
    assert pool.router["replaced"] == sorted(replaced)
    shared = set(pool.tasks()[0].instructions) & set(pool.group_of(evaluation["task"]).tasks[-1].instructions)
    assert shared
    for version, name in ((pool, f"{MOVIE}@2"), (instance.pool(instance.champion().digest), MOVIE)):
        assert {route.nearest_task for route in Router.of(version).route_many(sorted(shared))} == {name}
