"""What the data checks make of answers that are out of reach, and of checks that were not made."""

from dataclasses import replace

from components.quality.reachable import OutOfReach
from components.quality.validation import Background, validate
from components.quality.validation_report import validation_html
from components.settings import ValidationSettings
from components.tasks.rows import Example

SETTINGS = ValidationSettings(min_rows=5)


def rows(prefix: str, count: int, output: str = "yes") -> list[Example]:
    return [Example("Say it.", f"{prefix} {i}", output) for i in range(count)]


def reach(task, examples):
    """As long as the number in an answer says."""
    counts = [int(row.output.partition(" ")[0]) if row.output[0].isdigit() else 0 for row in examples]
    limit = task.decoding.max_new_tokens
    return [OutOfReach(f"{n} tokens, decoding.max_new_tokens is {limit}", n) if n > limit else None for n in counts]


def known(**fields) -> Background:
    return Background(too_long=lambda _, examples: [0] * len(examples), reach=reach, **fields)


def test_a_task_whose_answers_are_cut_is_refused_with_the_worst_row_and_the_mend(snapshot_of):
    test = rows("test", 20, "67 apples")
    test[7] = replace(test[7], output="71 apples")
    result = validate(snapshot_of(rows("train", 20), rows("validation", 20), test), [], SETTINGS, known())
    assert result.verdict == "refuse"
    [check] = [c for c in result.checks if not c.success]
    assert (check.name, check.split, check.severity) == ("reachable", "test", "hard")
    assert check.seen == "20 of 20, worst row 8: 71 tokens, decoding.max_new_tokens is 32"
    assert "set decoding.max_new_tokens in task.yaml to 71 or more, or leave it out" in check.expected
    assert check.rows[0] == 1
    assert check.found[7] == "71 tokens, decoding.max_new_tokens is 32"
    assert result.not_checked == ()


def test_a_few_such_rows_are_counted_and_let_by(snapshot_of):
    train = [*rows("train", 199), *rows("last", 1, "40 apples")]
    snapshot = snapshot_of(train, rows("validation", 20), rows("test", 20))
    result = validate(snapshot, [], SETTINGS, known())
    [check] = [c for c in result.checks if c.name == "reachable" and c.split == "train"]
    assert check.success
    assert check.seen == "1 of 200, worst row 200: 40 tokens, decoding.max_new_tokens is 32"
    strict = SETTINGS.model_copy(update={"max_unreachable": 0.0})
    assert validate(snapshot, [], strict, known()).verdict == "refuse"


def test_whole_answers_of_long_free_text_get_a_warning(snapshot_of):
    long = "word " * 40
    splits = [[replace(row, output=f"{long}{i}") for i, row in enumerate(rows(s, 20))] for s in ("a", "b", "c")]
    result = validate(snapshot_of(*splits), [], SETTINGS, known())
    assert {c.name for c in result.checks if not c.success} == {"exact_match_on_long_text"}
    assert result.verdict == "warn"
    same = validate(snapshot_of(*splits, metric="rouge_l"), [], SETTINGS, known())
    assert all(c.success for c in same.checks)


def test_long_japanese_text_is_counted_in_words(snapshot_of):
    long = "今朝、病院の売店が開きました。" * 6
    splits = [[replace(row, output=f"{long}{i}") for i, row in enumerate(rows(s, 20))] for s in ("a", "b", "c")]
    result = validate(snapshot_of(*splits), [], SETTINGS, known())
    assert "exact_match_on_long_text" in {c.name for c in result.checks if not c.success}


def test_without_a_tokenizer_the_verdict_names_what_was_not_checked(snapshot_of):
    snapshot = snapshot_of(rows("train", 20), rows("validation", 20), rows("test", 20))
    result = validate(snapshot, [], SETTINGS, Background(no_tokenizer="the model is not here"))
    assert [(one.check, one.reason) for one in result.not_checked] == [
        ("context", "the model is not here"),
        ("reachable", "the model is not here"),
    ]
    assert result.to_json()["not_checked"][0] == {"check": "context", "reason": "the model is not here"}
    assert "Not checked: context: the model is not here." in validation_html(result)
    assert "All 84 checks hold" not in validation_html(result)


def test_erased_rows_of_earlier_tasks_are_named(snapshot_of):
    earlier = snapshot_of(rows("old", 20), rows("older", 20), rows("oldest", 20), name="earlier")
    gone = replace(earlier, splits={s: replace(ref, object="0" * 64) for s, ref in earlier.splits.items()}, _read={})
    snapshot = snapshot_of(rows("train", 20), rows("validation", 20), rows("test", 20))
    [omission] = validate(snapshot, [gone], SETTINGS, known()).not_checked
    assert omission.check == "leaks"
    assert "earlier@1 train, earlier@1 validation, earlier@1 test" in omission.reason


def test_unlabelled_rows_are_named(snapshot_of):
    snapshot = snapshot_of(rows("train", 20), rows("validation", 20), rows("test", 20))
    snapshot = replace(snapshot, unlabelled_split=snapshot.splits["train"])
    [omission] = validate(snapshot, [], SETTINGS, known()).not_checked
    assert omission.check == "unlabelled rows"
