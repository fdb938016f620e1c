"""Stored predictions whose scores rest on another segmentation of words."""

from dataclasses import replace
from pathlib import Path

import pytest

from components.evaluation.metrics import rouge_l
from components.evaluation.scored import scored_rows, with_present_scores, words_mark
from components.storage.objects import ObjectStore
from components.tasks.package import Package
from components.tasks.snapshot import Snapshot, take_snapshot
from components.words import segmentation

REFERENCE, ANSWER = "病院の売店が開きました。番号は266です。", "病院の売店が開きました。番号は267です。"


@pytest.fixture
def task(take_example):
    """A snapshot whose references are all one text."""

    def make(reference: str, metric: str = "rouge_l") -> Snapshot:
        known = take_example("grammar_check", metric=metric, choices=None)
        splits = {s: tuple(replace(row, output=reference) for row in known.rows(s)) for s in known.splits}
        return take_snapshot(Package(Path(), known.task, splits, ()), known.store)

    return make


def stored(store: ObjectStore, snapshot: Snapshot, text: str | None, score: float, **mark: str) -> str:
    """Predictions as the release before wrote them, or with a mark."""
    rows = [
        {"row": e.id, "key": "k", "group": None, "text": text, "score": score, "gap": 1.0, "from": None}
        for e in snapshot.rows("test")
    ]
    value = {"kind": "predictions", "schema": 1, "task": snapshot.digest, "split": "test", "numerics": "n"}
    return store.put_json({**value, "rows": rows, **mark})


def test_scores_of_an_earlier_release_are_made_again(store, task) -> None:
    snapshot = task(REFERENCE)
    old = stored(store, snapshot, ANSWER, 0.0)
    new = with_present_scores(store, old)
    assert new != old
    assert {row["score"] for row in scored_rows(store, old)} == {rouge_l(ANSWER, REFERENCE)}
    assert scored_rows(store, old) == store.get_json(new)["rows"]
    assert store.get_json(new)["words"] == segmentation()
    assert with_present_scores(store, new) == new


def test_scores_of_another_dictionary_are_made_again(store, task) -> None:
    old = stored(store, task(REFERENCE), ANSWER, 0.1, words="1, ICU 70.1")
    assert scored_rows(store, old)[0]["score"] == rouge_l(ANSWER, REFERENCE)


@pytest.mark.parametrize(
    ("reference", "metric"),
    [
        ("The shop opened at 266.", "rouge_l"),
        ("오늘 아침 병원 매점이 문을 열었습니다.", "token_f1"),
        (REFERENCE, "exact_match"),
    ],
)
def test_other_scores_and_their_objects_stay(store, task, reference, metric) -> None:
    old = stored(store, task(reference, metric), reference, 0.123)
    assert with_present_scores(store, old) == old
    assert {row["score"] for row in scored_rows(store, old)} == {0.123}
    assert words_mark(metric, [reference]) == {}


def test_an_answer_in_such_a_script_to_a_spaced_reference_counts(store, task) -> None:
    old = stored(store, task("The shop 266"), "the 病院", 0.5)
    assert with_present_scores(store, old) != old


def test_what_was_not_decoded_keeps_its_score(store, task) -> None:
    old = stored(store, task(REFERENCE), None, 0.0)
    assert {row["score"] for row in scored_rows(store, old)} == {0.0}


def test_where_the_references_were_erased_the_stored_scores_stand(store, task) -> None:
    snapshot = task(REFERENCE)
    old = stored(store, snapshot, ANSWER, 0.0)
    store.erase(snapshot.splits["test"].object, "withdrawn")
    assert with_present_scores(store, old) == old
