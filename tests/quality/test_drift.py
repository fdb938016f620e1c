from dataclasses import replace

import pytest

from components.quality.drift import check_drift
from components.quality.drift_report import drift_html, evidently_report
from components.settings import DriftSettings
from components.storage.objects import canonical
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot, take_snapshot

SETTINGS = DriftSettings()


def value(result, name):
    return next(effect for effect in result.effects if effect.name == name)


@pytest.fixture(scope="module")
def half(example_package, store):
    def take(name: str, part: int) -> Snapshot:
        package = example_package(name)
        rows = package.splits["train"][part * 300 : (part + 1) * 300]
        task = package.task.model_copy(update={"version": f"half{part}"})
        return take_snapshot(replace(package, task=task, splits={**package.splits, "train": rows}), store)

    return take


@pytest.mark.parametrize(
    ("name", "prior", "verdict"),
    [
        ("product_sentiment", "movie_sentiment", "related"),
        ("negate_sentence", "passive_voice", "related"),
        ("movie_sentiment", "passive_voice", "new"),
        ("grammar_check", "negate_sentence", "new"),
    ],
)
def test_verdicts_on_the_examples(example, name, prior, verdict):
    result = check_drift(example(name), [example(prior)], SETTINGS)
    assert (result.verdict, result.nearest) == (verdict, f"{prior}@1")
    assert result.nearest_task == example(prior).digest
    assert value(result, "question_auc").low > 0.9
    assert canonical(result.to_json())


@pytest.mark.parametrize("name", ["movie_sentiment", "grammar_check"])
def test_the_second_half_of_a_task_is_known(half, name):
    result = check_drift(half(name, 1), [half(name, 0)], SETTINGS)
    assert result.verdict == "known"
    question = value(result, "question_auc")
    assert question.low < 0.5 < question.high < SETTINGS.known_auc or question.value < 0.5


def test_the_nearest_of_several_is_named_and_the_result_repeats(example):
    priors = [example(name) for name in ("passive_voice", "movie_sentiment", "booking_slot")]
    result = check_drift(example("product_sentiment"), priors, SETTINGS, seed=3)
    assert (result.verdict, result.nearest) == ("related", "movie_sentiment@1")
    assert check_drift(example("product_sentiment"), priors, SETTINGS, seed=3) == result
    compared = {effect.reference for effect in result.effects if effect.name == "question_auc"}
    assert compared == {"passive_voice@1", "movie_sentiment@1", "booking_slot@1"}


def test_without_an_earlier_task_everything_is_new(example):
    task = example("movie_sentiment")
    for priors in ([], [task]):
        result = check_drift(task, priors, SETTINGS)
        assert (result.verdict, result.nearest) == ("new", None)
        assert "no earlier task" in result.reasons[0]
        assert "No earlier task" in drift_html(result)


def texts(text: str, count: int = 30) -> list[Example]:
    return [Example("Read it.", f"{text} {i}", "yes") for i in range(count)]


def test_unseen_scripts_and_lengths_are_extreme(snapshot_of):
    def task(text: str) -> Snapshot:
        return snapshot_of(texts(text), texts("v", 2), texts("t", 2), name=f"made_{len(text)}")

    plain = task("a short line")
    foreign = check_drift(task("короткая строка на другом языке"), [plain], SETTINGS)
    assert foreign.verdict == "extreme"
    assert "scripts not seen" in foreign.reasons[0]
    assert value(foreign, "foreign_share").value == 1
    long = check_drift(task("a short line " * 20), [plain], SETTINGS)
    assert long.verdict == "extreme"
    assert value(long, "length_ratio").value > 10
    assert check_drift(plain, [task("a short line " * 20)], SETTINGS).verdict == "extreme"
    lenient = SETTINGS.model_copy(update={"extreme_foreign_share": 1.0, "extreme_length_ratio": 100.0})
    assert check_drift(task("a short line " * 20), [plain], lenient).verdict != "extreme"


def test_erased_rows_are_replaced_by_kept_ones_or_named(snapshot_of):
    task = snapshot_of(texts("a line"), texts("v", 5), texts("t", 5))

    def without(*splits: str) -> Snapshot:
        gone = {split: replace(task.splits[split], object="0" * 64) for split in splits}
        return replace(task, digest="1" * 64, splits={**task.splits, **gone}, _read={})

    assert check_drift(task, [without("train")], SETTINGS).nearest == "made@1"
    result = check_drift(task, [without("train", "test")], SETTINGS)
    assert result.verdict == "new"
    assert any(one.check == "drift" and "made@1" in one.reason for one in result.not_checked)
    assert "no rows of made@1 are kept" in drift_html(result)


def test_measures_that_were_not_made_are_named(snapshot_of):
    few = snapshot_of(texts("a line", 30), texts("v", 5), texts("t", 5))
    other = snapshot_of(texts("a word", 30), texts("v", 5), texts("t", 5), name="other")

    def unmade(*arguments, **fields) -> dict[str, str]:
        return {one.check: one.reason for one in check_drift(few, [other], *arguments, **fields).not_checked}

    assert unmade(SETTINGS, unread="the model is not here") == {
        "rows unlike the rest": "fewer than 60 rows in train or in validation and test",
        "difficulty for the base model": "the model is not here",
    }
    read = [lambda asked: [1.0] * len(asked)]
    off = SETTINGS.model_copy(update={"model_rows": 0})
    assert unmade(off, 0, None, *read)["difficulty for the base model"] == "quality.drift.model_rows is 0"
    assert "difficulty for the base model" not in unmade(SETTINGS, 0, None, *read)


def test_earlier_tasks_that_are_not_told_apart_row_by_row_are_counted(snapshot_of):
    priors = [snapshot_of(texts(f"line {n}", 5), texts("v", 2), texts("t", 2), name=f"t{n}") for n in range(10)]
    result = check_drift(snapshot_of(texts("new", 5), texts("v", 2), texts("t", 2), name="new"), priors, SETTINGS)
    [reason] = [one.reason for one in result.not_checked if one.check == "drift against every earlier task"]
    assert reason == "only the 8 most similar of 10 earlier tasks are told apart row by row"


def test_few_rows_never_count_as_known(snapshot_of):
    one = snapshot_of(texts("same", 1), texts("v", 1), texts("t", 1), name="one")
    other = snapshot_of(texts("same", 3), texts("v", 1), texts("t", 1), name="other")
    assert check_drift(one, [other], SETTINGS).verdict == "related"


def test_the_page_is_self_contained_and_escaped(example, snapshot_of):
    page = drift_html(check_drift(example("product_sentiment"), [example("movie_sentiment")], SETTINGS))
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page
    assert "movie_sentiment@1" in page


def test_evidently_reports_with_and_without_an_earlier_task(example, capfd, recwarn):
    against = evidently_report(example("product_sentiment"), [example("movie_sentiment"), example("passive_voice")])
    assert "Drift" in against
    alone = evidently_report(example("passive_voice"), [example("passive_voice")])
    assert example("passive_voice").rows("train")[0].input not in alone
    for page in (against, alone):
        assert 'src="http' not in page
        assert '<link rel="stylesheet" href="http' not in page
    assert capfd.readouterr() == ("", "")
    said = [str(each.message) for each in recwarn if not issubclass(each.category, ResourceWarning)]
    assert not said, "what other tests left unclosed aside"


def test_labels_cannot_break_out_of_evidentlys_page(snapshot_of):
    label = "</script><script>alert(1)</script>"
    rows = [Example("Which?", f"row {i}", label if i % 2 else "other") for i in range(20)]
    page = evidently_report(snapshot_of(rows, rows[:2], rows[2:4], choices=[label, "other"]), [])
    assert "alert(1)" not in page
