import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.tasks.package import Package, read_package
from components.tasks.problems import MAX_LINE_BYTES, PackageError, Problem, forbidden_character
from components.tasks.quarantine import package_digest
from components.tasks.rows import read_rows
from components.tasks.task_file import Task

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
ROW = '{"instruction": "Say it.", "input": "a", "output": "b"}\n'


def refused(path) -> list[Problem]:
    with pytest.raises(PackageError) as caught:
        read_package(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 1
    return caught.value.problems


@pytest.mark.parametrize("folder", sorted(path for path in EXAMPLES.iterdir() if path.is_dir()), ids=lambda p: p.name)
def test_every_example_is_a_valid_package(folder):
    package = read_package(folder)
    assert package.task.name == folder.name
    assert {split: len(rows) for split, rows in package.splits.items()} == {
        "train": 600,
        "validation": 100,
        "test": 200,
    }
    assert {"LICENSE", "ATTRIBUTION.md"} <= set(package.files)


def test_a_valid_package_is_read_whole(make_package):
    package = read_package(make_package(header={"retention": {"until": "2031-01-31"}}))
    assert isinstance(package, Package)
    assert package.task.label == "colours@1"
    assert package.task.retention.until.isoformat() == "2031-01-31"
    assert package.splits["train"][0].question == ("Name the colour.", "train 0")


@pytest.mark.parametrize(
    ("line", "field", "seen"),
    [
        ("not json\n", None, "not json"),
        ('["a"]\n', None, "['a']"),
        ('{"input": "a", "output": "b"}\n', "instruction", "no such field"),
        ('{"instruction": "a"}\n', "output", "no such field"),
        ('{"instruction": "a", "output": ""}\n', "output", "''"),
        ('{"instruction": "a", "output": " "}\n', "output", "' '"),
        ('{"instruction": "a", "output": 3}\n', "output", "3"),
        ('{"instruction": "a", "output": "b", "label": "c"}\n', "'label'", "an unknown field"),
        ('{"instruction": "a", "output": "b", "image": "c.png"}\n', "image", "no such file"),
        ('{"instruction": "a", "output": "b", "output": "c"}\n', None, "twice"),
        ('{"instruction": "a", "output": NaN}\n', None, "NaN"),
        ('{"instruction": "a", "output": "b\\u0000"}\n', "output", "U+0000"),
        ('{"instruction": "a", "output": "b\\u001b[31m"}\n', "output", "U+001B"),
        ('{"instruction": "a", "output": "\\ud800"}\n', "output", "U+D800"),
        ('{"instruction": "a", "output": "b", "choices": ["c"]}\n', "output", "'b'"),
        ('{"instruction": "a", "output": "b", "choices": []}\n', "choices", "[]"),
        ('{"instruction": "a", "output": "b", "choices": ["b", "b"]}\n', "choices", "['b', 'b']"),
        ("[" * 100_000 + "\n", None, "recursion"),
        ('{"instruction": "' + "a" * MAX_LINE_BYTES + '", "output": "b"}\n', None, "a row of"),
    ],
)
def test_a_bad_row_is_refused_with_file_line_and_field(make_package, line, field, seen):
    (problem,) = refused(make_package(train=ROW + "\n" + line))
    assert (problem.file, problem.line, problem.field) == ("train.jsonl", 3, field)
    assert seen in problem.seen
    assert problem.expected


def test_wrong_encodings_are_refused_and_a_utf8_mark_is_dropped(make_package):
    (problem,) = refused(make_package("latin", train=(ROW + ROW.replace('"b"', '"bé"')).encode("latin-1")))
    assert (problem.file, problem.line) == ("train.jsonl", 2)
    assert "0xe9" in problem.seen
    assert "UTF-8" in problem.expected
    assert refused(make_package("wide", test=ROW.encode("utf-16")))
    package = read_package(make_package("marked", train=b"\xef\xbb\xbf" + ROW.replace("\n", "\r\n").encode()))
    assert package.splits["train"][0].instruction == "Say it."


def test_zero_rows_and_missing_files_are_refused(make_package):
    (problem,) = refused(make_package("empty", train="\n \n"))
    assert (problem.file, problem.seen) == ("train.jsonl", "0 rows")
    gone = make_package("gone", header={"splits": {"test": "test.jsonl"}})
    (gone / "test.jsonl").unlink()
    (problem,) = refused(gone)
    assert (problem.file, problem.seen) == ("test.jsonl", "no such file")
    (gone / "train.jsonl").unlink()
    assert {p.file for p in refused(gone)} == {"train.jsonl", "test.jsonl"}
    (gone / "task.yaml").unlink()
    assert {p.file for p in refused(gone)} == {"task.yaml", "train.jsonl"}


def test_a_test_row_that_occurs_in_train_is_refused(make_package):
    leak = {"instruction": "Say it.", "input": "a", "output": "another answer"}
    (problem,) = refused(make_package(train=[{**leak, "output": "b"}], test=[{**leak, "input": "z"}, leak]))
    assert (problem.file, problem.line, problem.field) == ("test.jsonl", 2, "instruction+input")
    assert "train.jsonl:1" in problem.seen


def test_outputs_must_be_among_the_task_choices(make_package):
    package = make_package(header={"choices": ["b", "c"]}, train=ROW, validation=ROW, test=ROW.replace('"a"', '"d"'))
    assert read_package(package).task.choices == ("b", "c")
    (package / "validation.jsonl").write_text(ROW.replace('"b"', '"B"'))
    (problem,) = refused(package)
    assert (problem.file, problem.line, problem.field) == ("validation.jsonl", 1, "output")


@pytest.mark.parametrize("header", [{"metric": "choice_accuracy"}, {"decoding": {"mode": "choose"}}])
def test_choosing_needs_choices(make_package, header):
    (problem,) = refused(make_package(header=header))
    assert (problem.file, problem.field) == ("train.jsonl", "choices")


@pytest.mark.parametrize(
    ("extra", "line", "field", "says"),
    [
        ("licences: MIT", 6, "licences", "unknown key"),
        ("decoding:\n  mode: generate\n  beams: 4", 8, "decoding.beams", "max_new_tokens"),
        ("metric: accuracy", 6, "metric", "exact_match"),
        ("name: twice", 6, "name", "the key twice"),
        ("target: 1.5", 6, "target", "1.5"),
        ("target: .nan", 6, "target", "finite"),
        ("choices: [no, yes]", 6, "choices.0", "quotes"),
        ("choices: [a, a]", None, None, "twice"),
        ("choices: [a, 'a ']", None, None, "white space"),
        ("retention:\n  train_rows: -1", 7, "retention.train_rows", "-1"),
        ("retention:\n  until: soon", 7, "retention.until", "soon"),
        ("supersedes: other", 6, "supersedes", "other"),
        ("splits:\n  train: ../train.jsonl", 7, "splits.train", "leaves the package"),
        ("splits:\n  train: /etc/train.jsonl", 7, "splits.train", "absolute"),
        ("splits:\n  train: C:train.jsonl", 7, "splits.train", "absolute"),
        ("splits:\n  train: a/../../train.jsonl", 7, "splits.train", "leaves the package"),
        ("splits:\n  train: train.pkl", 7, "splits.train", ".jsonl"),
        ("splits:\n  train: test.jsonl", 6, "splits", "same file"),
        ("target: *x", 6, None, "alias"),
        ("target: &x 1", 6, None, "anchor"),
        ("target: !!python/object/apply:os.system [id]", 6, "target", "the tag"),
        ("<<: {a: 1}", 6, None, "<<"),
        ("target: [", None, None, "YAML"),
        ("x: " + "[" * 20_000, None, None, "YAML"),
    ],
)
def test_a_bad_task_yaml_is_refused_with_line_and_key(make_package, extra, line, field, says):
    package = make_package()
    base = (package / "task.yaml").read_text()
    assert base.count("\n") == 5
    (package / "task.yaml").write_text(f"{base}{extra}\n")
    problem = refused(package)[0]
    assert problem.file == "task.yaml"
    assert says in str(problem)
    if line is not None:
        assert problem.line == line
    if field is not None:
        assert problem.field == field


def test_task_yaml_types_are_strict(make_package):
    (problem,) = refused(make_package("number", header={"version": 1}))
    assert problem.field == "version"
    assert "quotes" in problem.expected
    package = make_package("scalar")
    (package / "task.yaml").write_bytes(b"just text")
    assert refused(package)[0].seen == "no mapping"
    (package / "task.yaml").write_bytes(b"name: \xff")
    assert "UTF-8" in refused(package)[0].expected


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("12:30", "12:30, which YAML reads as the number 750"),
        ("0755", "0755, which YAML reads as the number 493"),
        ("1_000", "1_000, which YAML reads as the number 1000"),
        ("1.50", "1.50, which YAML reads as the number 1.5"),
        ("7", "7"),
        ("no", "no, which YAML reads as false"),
        ("~", "~, which YAML reads as null"),
    ],
)
def test_a_value_that_yaml_takes_for_no_text_is_shown_as_it_is_written(make_package, written, seen):
    package = make_package()
    (package / "task.yaml").write_text((package / "task.yaml").read_text() + f"choices: [{written}, b]\n")
    (problem,) = refused(package)
    assert (problem.field, problem.seen) == ("choices.0", seen)
    assert f'"{written}"' in problem.expected


def test_links_special_files_and_strangers_are_refused(make_package, tmp_path):
    secret = tmp_path / "secret.jsonl"
    secret.write_text(ROW)
    linked = make_package("linked")
    (linked / "train.jsonl").unlink()
    (linked / "train.jsonl").symlink_to(secret)
    assert refused(linked)[0].seen == "a link"
    folder_link = make_package("folder_link")
    (folder_link / "data").symlink_to(tmp_path)
    assert refused(folder_link)[0].seen == "a link"
    alias = tmp_path / "alias"
    alias.symlink_to(make_package("real"))
    assert refused(alias)[0].seen == "a link"
    pipe = make_package("pipe")
    os.mkfifo(pipe / "notes.jsonl")
    assert refused(pipe)[0].seen == "no regular file"
    stranger = make_package("stranger")
    (stranger / "weights.pkl").write_bytes(b"\x80")
    (stranger / "README.md").write_text("fine")
    (problem,) = refused(stranger)
    assert (problem.file, problem.seen) == ("weights.pkl", "an unknown file")
    assert refused(tmp_path / "nothing")[0].seen == "no such folder"
    assert refused(secret)[0].seen == "a file"


def test_limits_on_size_hold(make_package, monkeypatch):
    package = make_package()
    monkeypatch.setattr("components.tasks.package.MAX_FILE_BYTES", 10)
    assert {p.seen for p in refused(package)} == {"more than 10 bytes"}
    monkeypatch.setattr("components.tasks.package.MAX_FILES", 3)
    assert "more than 3 files" in refused(package)[0].seen
    monkeypatch.setattr("components.tasks.rows.MAX_ROWS", 1)
    assert read_rows(ROW.encode() * 3, "train.jsonl", None).problems[0].line == 2


def test_all_problems_of_a_file_come_at_once_each_kind_with_its_count(make_package):
    package = make_package(header={"version": 1, "owner": "NOT OK"}, train="x\n" * 50, test="{}\n")
    problems = refused(package)
    (broken,) = [p for p in problems if p.file == "train.jsonl"]
    assert (broken.line, broken.count, broken.lines) == (1, 50, (1, 2, 3, 4, 5))
    assert {p.field for p in problems if p.file == "task.yaml"} == {"version", "owner"}
    assert {p.field for p in problems if p.file == "test.jsonl"} == {"instruction", "output"}


def test_messages_hold_no_control_characters(make_package):
    problems = refused(make_package(train='{"instruction": "\\u001b]0;owned\\u0007", "output": "\\u202e"}\n'))
    assert all(forbidden_character(str(problem)) is None for problem in problems)
    assert str(problems[0]).isascii()


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_problems(content):
    read = read_rows(content, "train.jsonl", None)
    assert read.rows or read.problems


@given(st.one_of(st.binary(max_size=120), st.text(max_size=120).map(lambda t: t.encode("utf-8", "surrogatepass"))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_task_yaml_is_a_task_or_a_package_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("fuzz")
    for split, question in (("train", "a"), ("validation", "b"), ("test", "c")):
        (folder / f"{split}.jsonl").write_text(ROW.replace('"a"', json.dumps(question)))
    (folder / "task.yaml").write_bytes(content)
    assert refused(folder)


ASKED = [{"instruction": "Name the colour.", "input": f"bare {i}"} for i in range(3)]


def test_unlabelled_rows_are_read_where_they_are(make_package):
    package = read_package(make_package("with", unlabelled=ASKED))
    assert [row.to_row() for row in package.unlabelled_rows] == ASKED
    assert read_package(make_package("without")).unlabelled_rows == ()
    renamed = make_package("renamed", header={"splits": {"unlabelled": "pool.jsonl"}}, pool=ASKED)
    assert read_package(renamed).unlabelled_rows == package.unlabelled_rows


@pytest.mark.parametrize("output", ["red", "", None])
def test_an_output_in_an_unlabelled_row_is_refused(make_package, output):
    (problem,) = refused(make_package(unlabelled=[*ASKED, {**ASKED[0], "output": output}]))
    assert (problem.file, problem.line, problem.field) == ("unlabelled.jsonl", 4, "output")
    assert "belongs in train" in problem.expected


def test_unlabelled_rows_are_read_as_strictly_as_others(make_package):
    rows = [{"input": "a"}, {**ASKED[0], "label": "red"}, {**ASKED[0], "choices": []}]
    problems = refused(make_package("rows", unlabelled=rows))
    assert [(problem.line, problem.field) for problem in problems] == [
        (1, "instruction"),
        (2, "'label'"),
        (3, "choices"),
    ]
    (problem,) = refused(make_package("empty", unlabelled="\n"))
    assert (problem.file, problem.seen) == ("unlabelled.jsonl", "0 rows")
    (problem,) = refused(make_package("gone", header={"splits": {"unlabelled": "pool.jsonl"}}))
    assert (problem.file, problem.seen) == ("pool.jsonl", "no such file")
    (problem,) = refused(make_package("twice", header={"splits": {"unlabelled": "train.jsonl"}}))
    assert "two splits" in problem.seen


def test_choosing_needs_choices_for_unlabelled_rows_too(make_package):
    def own(rows):
        return [{**row, "choices": ["red", "blue"]} for row in rows]

    splits = ("train", "validation", "test")
    labelled = {split: own([{"instruction": "Name it.", "input": split, "output": "red"}]) for split in splits}
    header = {"metric": "choice_accuracy"}
    assert read_package(make_package("own", header=header, **labelled, unlabelled=own(ASKED)))
    (problem,) = refused(make_package("none", header=header, **labelled, unlabelled=ASKED))
    assert (problem.file, problem.line, problem.field) == ("unlabelled.jsonl", 1, "choices")


def labelled(*outputs: str, at: str = "x") -> list[dict]:
    return [{"instruction": "Say it.", "input": f"{at} {n}", "output": output} for n, output in enumerate(outputs)]


def test_an_output_is_a_choice_apart_from_white_space_and_unicode_form(make_package):
    rows = labelled("positive ", "the\u0301", "positive")  # e and a combining accent
    package = read_package(
        make_package(header={"choices": ["positive", "th\u00e9"]}, train=rows, **evaluated("positive"))
    )
    assert [row.output for row in package.splits["train"]] == ["positive", "th\u00e9", "positive"]
    assert any(remark.startswith("2 rows: an output is a choice apart from white space") for remark in package.remarks)


def evaluated(output: str) -> dict:
    return {"validation": labelled(output, at="y"), "test": labelled(output, at="z")}


@pytest.mark.parametrize("twice", ["positive ", "positive\n"])
def test_choices_that_compare_as_equal_are_refused(make_package, twice):
    (problem,) = refused(make_package("task", header={"choices": ["positive", twice]}, train=labelled("positive")))
    assert "but for white space or Unicode form" in problem.seen
    rows = [{**row, "choices": ["positive", twice]} for row in labelled("positive")]
    assert refused(make_package("rows", train=rows))[0].field == "choices"


def test_a_task_of_an_older_release_with_such_choices_is_still_read():
    content = {"name": "a", "version": "1", "owner": "b", "description": "c", "licence": "d", "choices": ["e", "e "]}
    assert Task.model_validate(content, strict=False).choices == ("e", "e ")


def test_the_same_question_with_other_options_is_another_question(make_package):
    asked = {"instruction": "Which is true?", "output": "a"}
    other, same = {**asked, "choices": ["a", "c"]}, {**asked, "choices": ["b", "a"]}
    splits = {"train": [{**asked, "choices": ["a", "b"]}], "validation": labelled("x")}
    assert read_package(make_package("other", **splits, test=[other]))
    (problem,) = refused(make_package("same", **splits, test=[same]))
    assert problem.file == "test.jsonl"


def test_line_ends_in_texts_become_line_feeds_and_nulls_are_absent(make_package):
    rows = [{**row, "input": "a\r\nb\rc", "choices": None} for row in labelled("one\r\ntwo")]
    rows.append(
        {"messages": [{"role": "user", "content": "q\r\n1"}, {"role": "assistant", "content": "a"}], "input": None}
    )
    package = read_package(make_package(train=rows))
    assert [(row.instruction, row.input, row.output) for row in package.splits["train"]] == [
        ("Say it.", "a\nb\nc", "one\ntwo"),
        ("q\n1", None, "a"),
    ]
    assert "2 rows: CR LF inside a text: read as LF" in package.remarks


@pytest.mark.parametrize("faulty", [5, 11])
def test_a_few_faulty_rows_of_a_large_split_are_set_aside_and_counted(make_package, faulty):
    rows = labelled(*["x"] * 1_000)
    for row in rows[100 : 100 + faulty]:
        row["input"] += "\x85"
    package = make_package(train=rows)
    if faulty > 10:
        (problem,) = refused(package)
        assert (problem.line, problem.count) == (101, 11)
        assert "`lcia import --repair`" in problem.expected
        return
    read = read_package(package)
    assert len(read.splits["train"]) == 995
    assert (read.set_aside[0].count, read.set_aside[0].lines) == (5, (101, 102, 103, 104, 105))
    assert read.remarks[0].startswith("set aside train.jsonl:101 input: seen character U+0085")


def test_what_operating_systems_leave_in_folders_is_no_part_of_a_package(make_package):
    package = make_package()
    before = package_digest(package)
    (package / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (package / "Thumbs.db").write_bytes(b"x")
    (package / "._train.jsonl").write_bytes(b"x")
    (package / "__MACOSX").mkdir()
    (package / "__MACOSX" / "._task.yaml").write_bytes(b"x")
    assert set(read_package(package).files) == {"task.yaml", "train.jsonl", "validation.jsonl", "test.jsonl"}
    assert package_digest(package) == before
