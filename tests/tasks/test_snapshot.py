import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.storage.objects import ObjectCorrupt, ObjectMissing, canonical, digest_of
from components.tasks.package import read_package
from components.tasks.problems import forbidden_character
from components.tasks.rows import Example, read_rows
from components.tasks.snapshot import SnapshotError, load_snapshot, take_snapshot, without_rows

TEXT = st.text(min_size=1, max_size=20).filter(lambda t: t.strip() and not forbidden_character(t))


def test_a_snapshot_is_loaded_as_it_was_taken(make_package, store):
    package = read_package(make_package(header={"target": 1, "retention": {"until": "2030-12-31", "train_rows": 3}}))
    taken = take_snapshot(package, store)
    loaded = load_snapshot(store, taken.digest)
    assert loaded == taken
    assert loaded.task == package.task
    for split in ("train", "validation", "test"):
        assert loaded.rows(split) == package.splits[split]
    assert loaded.instructions() == ("Name the colour.",)
    assert take_snapshot(package, store).digest == taken.digest


def test_the_task_object_has_the_agreed_shape(make_package, store):
    taken = take_snapshot(read_package(make_package()), store)
    value = store.get_json(taken.digest)
    train = value["splits"].pop("train")
    assert train["rows"] == 6
    assert store.get_lines(train["object"])[0]["input"] == "train 0"
    del value["splits"]
    assert value == {
        "kind": "task",
        "schema": 1,
        "name": "colours",
        "version": "1",
        "owner": "demo",
        "description": "Name the colour of a thing.",
        "metric": "exact_match",
        "decoding": {"mode": "generate", "max_new_tokens": 32, "length_normalisation": "none"},
        "choices": None,
        "retention": {"train_rows": 0, "evaluation_rows": True, "until": None},
        "licence": "CC0-1.0",
        "supersedes": None,
        "target": None,
    }


def test_formatting_does_not_change_the_digest_but_content_does(make_package, store):
    plain = make_package("plain")
    other = make_package("other")
    lines = [json.loads(line) for line in (other / "train.jsonl").read_text().splitlines()]
    shuffled = [{key: row[key] for key in ("output", "input", "instruction")} for row in lines]
    text = "\r\n\r\n".join(
        json.dumps(row, separators=(" , ", " : ")).replace("colour", "\\u0063olour") for row in shuffled
    )
    (other / "learn.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (other / "train.jsonl").unlink()
    header = (other / "task.yaml").read_text().splitlines()
    (other / "task.yaml").write_text("\n".join(["splits: {train: learn.jsonl}  # renamed", *reversed(header)]))
    digest = take_snapshot(read_package(plain), store).digest
    assert take_snapshot(read_package(other), store).digest == digest
    (plain / "test.jsonl").write_text((plain / "test.jsonl").read_text().replace("test 0", "test zero"))
    assert take_snapshot(read_package(plain), store).digest != digest


def test_unlabelled_rows_are_one_more_object_and_absent_ones_leave_no_trace(make_package, store):
    asked = [{"instruction": "Name the colour.", "input": f"bare {i}"} for i in range(3)]
    plain = take_snapshot(read_package(make_package("plain")), store)
    assert "unlabelled" not in store.get_json(plain.digest)["splits"]
    assert plain.unlabelled_rows() == load_snapshot(store, plain.digest).unlabelled_rows() == ()
    more = take_snapshot(read_package(make_package("more", unlabelled=asked)), store)
    assert more.digest != plain.digest
    assert more.splits == plain.splits
    loaded = load_snapshot(store, more.digest)
    assert loaded == more
    assert [row.to_row() for row in loaded.unlabelled_rows()] == asked
    fewer = without_rows(loaded, {("train", loaded.rows("train")[0].id)}, store)
    assert load_snapshot(store, fewer.digest).unlabelled_rows() == loaded.unlabelled_rows()
    assert len(fewer.rows("train")) == len(loaded.rows("train")) - 1


def test_the_digest_of_a_package_is_the_one_it_always_was(make_package, store):
    """Task digests are written in logs and manifests for good; this one was taken before there were unlabelled rows."""
    assert (
        take_snapshot(read_package(make_package()), store).digest
        == "0172c472dd5c9f7d1557baaf8d03b68e93c33404af68f4310b7c9b3170e2779d"
    )


def test_missing_changed_and_foreign_objects_are_told_apart(make_package, store, tmp_path):
    taken = take_snapshot(read_package(make_package()), store)
    with pytest.raises(ObjectMissing):
        load_snapshot(store, "0" * 64)
    with pytest.raises(SnapshotError, match="pool"):
        load_snapshot(store, store.put_json({"kind": "pool", "schema": 1}))
    with pytest.raises(SnapshotError, match="schema"):
        load_snapshot(store, store.put_json({"kind": "task", "schema": 1, "name": "x"}))
    rows = taken.splits["test"].object
    Path(tmp_path, "objects", "sha256", rows[:2], rows).write_bytes(b"changed")
    with pytest.raises(ObjectCorrupt):
        load_snapshot(store, taken.digest).rows("test")


@given(
    st.builds(
        Example,
        instruction=TEXT,
        input=st.none() | TEXT,
        output=TEXT,
        choices=st.none(),
    ),
    st.booleans(),
)
def test_a_row_survives_writing_and_reading(example, ascii_only):
    line = json.dumps(example.to_row(), ensure_ascii=ascii_only).encode()
    read = read_rows(line, "train.jsonl", None)
    ((_, back),), problems = read.rows, read.problems
    assert not problems
    assert back == example
    assert back.id == digest_of(canonical(example.to_row()))


def test_an_empty_input_is_no_input():
    ((_, with_empty),) = read_rows(b'{"instruction": "a", "input": "", "output": "b"}', "train.jsonl", None).rows
    assert with_empty == Example("a", None, "b")
    assert "input" not in with_empty.to_row()
