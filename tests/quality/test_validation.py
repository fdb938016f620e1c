import logging
import subprocess
import sys
from dataclasses import replace

import pytest

from components.quality.validation import ValidationResult, validate
from components.quality.validation_report import validation_html
from components.settings import ValidationSettings
from components.storage.objects import canonical
from components.tasks.rows import Example

SETTINGS = ValidationSettings(min_rows=5)


def rows(prefix: str, count: int, outputs: tuple[str, ...] = ("red", "blue")) -> list[Example]:
    return [Example("Name it.", f"{prefix} {i}", outputs[i % len(outputs)]) for i in range(count)]


def broken(result: ValidationResult) -> dict[tuple[str, str], tuple[int, ...]]:
    return {(check.name, check.split): check.rows for check in result.checks if not check.success}


@pytest.mark.parametrize("name", ["product_sentiment", "passive_voice"])
def test_the_examples_pass(example, name):
    result = validate(example(name), [example("movie_sentiment"), example("negate_sentence")], ValidationSettings())
    assert result.verdict == "pass"
    assert not broken(result)
    assert result.statistics["rows"] == {"train": 600, "validation": 100, "test": 200}
    assert canonical(result.to_json())


def test_hard_rules_refuse_with_the_rows_that_break_them(snapshot_of):
    train = rows("train", 20)
    train[3] = replace(train[3], output="green")
    train[4] = replace(train[4], input="x" * 50)
    train[5] = replace(train[5], output="\u00a0")
    train[6] = replace(train[6], instruction="bell \x07")
    task = snapshot_of(train, rows("validation", 3), rows("test", 20), choices=["red", "blue"])
    result = validate(task, [], SETTINGS.model_copy(update={"max_characters": 40}))
    assert result.verdict == "refuse"
    assert broken(result) == {
        ("choices", "train"): (4, 6),
        ("input_length", "train"): (5,),
        ("output_not_blank", "train"): (6,),
        ("instruction_control_characters", "train"): (7,),
        ("row_count", "validation"): (),
    }
    few = next(check for check in result.checks if check.name == "row_count" and check.split == "validation")
    assert (few.seen, few.expected) == ("3 rows", "at least 5 rows")


def test_soft_rules_warn(snapshot_of):
    train = rows("train", 40)
    train[1] = train[0]
    train[3] = train[2]
    train[7] = replace(train[6], output="blue")
    train[9] = replace(train[9], input="zero\u200bwidth")
    test = [*rows("test", 20), Example("Say what it is.", "  TRAIN  12 ", "red")]
    result = validate(snapshot_of(train, rows("validation", 20), test), [], SETTINGS)
    assert result.verdict == "warn"
    assert broken(result) == {
        ("duplicates", "train"): (1, 2, 3, 4),
        ("conflicts", "train"): (7, 8),
        ("input_invisible_characters", "train"): (10,),
        ("reworded", "test"): (21,),
    }


def test_a_rare_label_warns(snapshot_of):
    train = [*rows("train", 60, ("red",)), *rows("rare", 2, ("blue",))]
    task = snapshot_of(train, rows("validation", 20), rows("test", 20), choices=["red", "blue", "green"])
    result = validate(task, [], SETTINGS)
    assert result.verdict == "warn"
    assert broken(result) == {("label_balance", "train"): (2, 3)}
    assert result.statistics["labels"] == {"blue": 2, "red": 60}


def test_own_test_rows_in_train_refuse(snapshot_of):
    train = rows("train", 200)
    test = [*rows("test", 200), replace(train[0], output="another answer")]
    result = validate(snapshot_of(train, rows("validation", 20), test), [], SETTINGS)
    assert result.verdict == "refuse"
    assert broken(result) == {("own_leaks", "test"): (201,)}


def test_leaks_into_and_out_of_earlier_tasks_are_set_aside_up_to_a_limit(snapshot_of):
    earlier = snapshot_of(rows("old train", 100), rows("old validation", 20), rows("old test", 20), name="earlier")
    train = [*rows("train", 199), earlier.rows("test")[3]]
    test = [*rows("test", 199), earlier.rows("train")[5]]
    result = validate(snapshot_of(train, rows("validation", 20), test), [earlier], SETTINGS)
    assert result.verdict == "warn"
    assert not broken(result)
    assert [(row.split, row.row, row.reason) for row in result.quarantined_rows] == [
        ("train", 200, "the same question is in earlier@1 test"),
        ("test", 200, "the same question is in earlier@1 train"),
    ]
    assert [row.id for row in result.quarantined_rows if row.split == "test"] == [test[199].id]
    assert not any(row.split == "validation" for row in result.quarantined_rows)
    strict = SETTINGS.model_copy(update={"max_leak": 0.001})
    refused = validate(snapshot_of(train, rows("validation", 20), test), [earlier], strict)
    assert refused.verdict == "refuse"
    assert broken(refused) == {("leaks", "train"): (200,), ("leaks", "test"): (200,)}


def test_rows_that_are_no_longer_kept_are_named(snapshot_of):
    earlier = snapshot_of(rows("erased", 20), rows("validation", 5), rows("kept test", 5), name="erased")
    gone = {**earlier.splits, "train": replace(earlier.splits["train"], object="0" * 64)}
    fresh = replace(earlier, splits=gone, _read={})
    task = snapshot_of(rows("train", 20), rows("validation 2", 20), rows("erased", 20))
    result = validate(task, [fresh], SETTINGS)
    assert result.verdict == "pass"
    assert result.statistics["leaks_not_checkable"] == ["erased@1 train"]


def test_a_task_is_not_compared_with_itself(snapshot_of):
    task = snapshot_of(rows("train", 20), rows("validation", 20), rows("test", 20))
    assert validate(task, [task], SETTINGS).verdict == "pass"


def test_the_page_is_self_contained_and_escaped(snapshot_of):
    train = rows("train", 20)
    train[0] = replace(train[0], output="<script>alert(1)</script>\u200b")
    result = validate(
        snapshot_of(train, rows("validation", 20), rows("test", 20), choices=["<i>", "blue"]), [], SETTINGS
    )
    page = validation_html(result)
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page
    assert "&lt;i&gt;" in page or "&lt;script" in page
    assert ">refuse<" in page
    assert len(page) < 50_000


def test_great_expectations_is_quiet(snapshot_of, capfd, caplog):
    caplog.set_level(logging.INFO)
    validate(snapshot_of(rows("train", 20), rows("validation", 20), rows("test", 20)), [], SETTINGS)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert not [record for record in caplog.records if record.name.startswith("great_expectations")]


def test_importing_the_types_stays_light():
    heavy = {"great_expectations", "evidently", "sklearn", "pandas"}
    code = f"import sys, components.quality.validation, components.quality.drift; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
