"""Another base model learns the tasks again: what is taught, how it is judged, that it goes on where it was."""

import shutil
from pathlib import Path

import pytest
from small_loop import OPS, SITE, TASKS, SmallLoop, learn, promote, write_loop, write_package

from components.evaluation.statistics import compare
from components.tasks.snapshot import load_snapshot
from lcia.inference import ask
from lcia.instance import Instance
from lcia.operations import decisions, figures, status, tasks, versions
from lcia.worker import rebase
from lcia.worker.rebase import NothingToRebase, VersionUndecided

MOVIE, PRODUCT, PASSIVE = TASKS


@pytest.fixture(scope="session")
def other_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with other weights."""
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(tiny_folder, folder)
    torch.manual_seed(7)
    LlamaForCausalLM(AutoConfig.from_pretrained(tiny_folder)).save_pretrained(folder)
    return folder


def test_another_base_model_learns_everything_again_and_is_judged_against_the_champion(
    champion: SmallLoop, other_folder: Path, tmp_path: Path
) -> None:
    old = champion.open()
    slot = write_package(tmp_path, "booking_slot", retention={"train_rows": 8, "evaluation_rows": True})
    learn(old, slot)
    before = promote(old)
    instance = champion.open(f"base_model.name={other_folder}")

    made = rebase.rebase(instance, SITE, print)

    assert made["learnt"] == [MOVIE, PRODUCT, PASSIVE, "booking_slot"]
    assert made["lost"] == {}
    assert made["parent"] == before
    assert made["exit_code"] == 3
    candidate = instance.version(made["number"])
    assert candidate is not None
    pool, was = instance.pool(candidate.digest), instance.pool(before)
    assert pool.base_model != was.base_model
    assert pool.parents[0] == before
    assert {e.task: e.instructions for e in pool.tasks()} == {e.task: e.instructions for e in was.tasks()}
    same = {frozenset(e.task for e in group.tasks) for group in pool.groups}
    assert same == {frozenset(e.task for e in group.tasks) for group in was.groups}

    # the gate's numbers are those of the two versions' own predictions
    shown = versions.show(instance, str(made["number"]))
    scores = [_scores(instance, digest) for digest in (before, candidate.digest)]
    steps = {row["task"]: row["value"] for row in shown["gate"]["rows"] if row["rule"] == "step"}
    assert steps.keys() == scores[0].keys() == {*TASKS, "booking_slot"}
    for task, value in steps.items():
        assert value == pytest.approx(compare(scores[0][task], scores[1][task], 0.05).drop)
    rules = {row["rule"] for row in shown["gate"]["rows"]}
    assert "lifetime" in rules
    assert not rules & {"unchanged", "new task", "validation"}
    tuning = [instance.store.get_json(instance.store.get_json(link)["tuning"]) for link in shown["rebase"]["links"]]
    assert [record["rows"] for record in tuning] == [30, 30, 30, 8]

    with pytest.raises(VersionUndecided, match="waits for people"):
        rebase.rebase(instance, SITE, print)
    assert promote(instance) == candidate.digest
    assert figures.matrix(instance)["tasks"] == [*TASKS, "booking_slot"]
    assert {one["name"]: one["score"] for one in tasks.tasks(instance)["tasks"]}.keys() == {*TASKS, "booking_slot"}
    text = instance.store.get_json(instance.evidence(candidate)["evaluation"])
    assert ask.ask(instance, was.tasks()[0].instructions[0], "a film", None, base=False)["version"] == made["number"]

    # the line goes on from here, with the lifetime budgets of before
    learn(instance, write_package(tmp_path, "grammar_check"))
    grown = instance.store.get_json(instance.evidence(instance.version(promote(instance)) or candidate)["evaluation"])
    assert {task: grown["anchors"][task] for task in text["anchors"]} == text["anchors"]
    assert figures.matrix(instance)["tasks"] == [*TASKS, "booking_slot", "grammar_check"]

    # and back
    decisions.rollback(instance, "4", OPS, "the old model is cheaper")
    assert ask.ask(instance, was.tasks()[0].instructions[0], "a film", None, base=False)["version"] == 4


def test_an_interrupted_rebase_goes_on_and_ends_in_the_same_version(
    champion: SmallLoop, other_folder: Path, tmp_path: Path
) -> None:
    other = champion.copy(tmp_path / "other")
    undisturbed = rebase.rebase(champion.open(f"base_model.name={other_folder}"), SITE, print)
    told: list[str] = []

    def say(words: str) -> None:
        told.append(words)
        if words.startswith(f"{PRODUCT}@"):
            raise KeyboardInterrupt

    instance = other.open(f"base_model.name={other_folder}")
    with pytest.raises(KeyboardInterrupt):
        rebase.rebase(instance, SITE, say)
    assert len(status.status(instance)["candidates"]) == 3
    told.clear()
    made = rebase.rebase(instance, SITE, told.append)
    assert made["digest"] == undisturbed["digest"]
    assert not any(words.startswith(f"{MOVIE}@") for words in told)


def test_a_task_without_rows_makes_the_gate_inconclusive(champion: SmallLoop, other_folder: Path) -> None:
    instance = champion.open(f"base_model.name={other_folder}", "policy.gate.enforce=true")
    now = instance.champion()
    assert now is not None
    gone = next(entry for entry in instance.pool(now.digest).tasks() if entry.name == PASSIVE)
    for digest in (load_snapshot(instance.store, gone.task).splits["train"].object, gone.kept_rows):
        instance.store.erase(str(digest), "retention")
    made = rebase.rebase(instance, SITE, print)
    assert made["lost"] == {PASSIVE: "no training rows of it are kept"}
    assert made["learnt"] == [MOVIE, PRODUCT]
    assert made["exit_code"] == 2
    rows = versions.show(instance, str(made["number"]))["gate"]["rows"]
    assert [(row["task"], row["verdict"]) for row in rows if row["rule"] == "not taught"] == [(PASSIVE, "inconclusive")]


def test_mistakes_are_refused(champion: SmallLoop, tiny_folder: Path, other_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    fresh = write_loop(tmp_path / "new", tiny_folder)
    with pytest.raises(NothingToRebase, match="no champion yet"):
        rebase.rebase(fresh.open(f"base_model.name={other_folder}"), SITE, print)
    with pytest.raises(NothingToRebase, match="the champion's own"):
        rebase.rebase(champion.open(), SITE, print)
    with pytest.raises(NothingToRebase, match="the champion's own"):  # other words for the same model
        rebase.rebase(champion.open("base_model.max_tokens=250"), SITE, print)


def _scores(instance: Instance, digest: str) -> dict[str, list[float]]:
    version = instance.version(digest)
    assert version is not None
    record = instance.store.get_json(instance.evidence(version)["evaluation"])
    return {
        name: [row["score"] for row in instance.store.get_json(found)["rows"]]
        for name, found in record["predictions"].items()
    }
