"""Rows as chat messages, as prompt with completion, and in Parquet: the same examples however they are written."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.tasks import layouts, parquet
from components.tasks.package import read_package
from components.tasks.problems import PackageError
from components.tasks.rows import Example, Unlabelled, read_rows, read_unlabelled

SYSTEM, ASK, ANSWER = "Name the colour.", "a lemon", "yellow"


IMAGE, OPEN, TEXT = {"type": "image", "image": "a.png"}, {"type": "image"}, {"type": "text", "text": ASK}


def turn(role: str, content: object) -> dict:
    return {"role": role, "content": content}


def read(row: dict) -> tuple[list[Example], list[str]]:
    read = read_rows(json.dumps(row).encode(), "train.jsonl", None)
    return [example for _, example in read.rows], [str(problem) for problem in read.problems]


@pytest.mark.parametrize(
    ("row", "example"),
    [
        ({"messages": [turn("user", ASK), turn("assistant", ANSWER)]}, Example(ASK, None, ANSWER)),
        (
            {"messages": [turn("system", SYSTEM), turn("user", ASK), turn("assistant", ANSWER)]},
            Example(SYSTEM, ASK, ANSWER),
        ),
        (
            {
                "messages": [
                    turn("system", SYSTEM),
                    turn("user", "a lime"),
                    turn("assistant", "green"),
                    turn("user", ASK),
                    turn("assistant", ANSWER),
                ]
            },
            Example(SYSTEM, f"User: a lime\nAssistant: green\nUser: {ASK}", ANSWER),
        ),
        ({"prompt": ASK, "completion": ANSWER}, Example(ASK, None, ANSWER)),
        (
            {"prompt": [turn("system", SYSTEM), turn("user", ASK)], "completion": [turn("assistant", ANSWER)]},
            Example(SYSTEM, ASK, ANSWER),
        ),
        (
            {"messages": [turn("user", ASK), turn("assistant", ANSWER)], "choices": ["yellow", "green"]},
            Example(ASK, None, ANSWER, ("yellow", "green")),
        ),
    ],
)
def test_nothing_that_was_said_is_lost(row, example):
    assert read(row) == ([example], [])


@pytest.mark.parametrize(
    ("row", "place", "expected"),
    [
        ({"messages": []}, "messages", "a list of messages"),
        ({"messages": [turn("user", ASK)]}, "messages", "an assistant turn last"),
        ({"messages": [turn("assistant", ANSWER)]}, "messages", "user and assistant in turn"),
        ({"messages": [turn("user", ASK), turn("user", ASK), turn("assistant", "x")]}, "messages", "in turn"),
        ({"messages": [turn("user", ASK), turn("system", SYSTEM), turn("assistant", "x")]}, "messages", "in turn"),
        ({"messages": [turn("tool", "x")]}, "messages[0].role", "system, user or assistant"),
        ({"messages": [turn("user", [{"type": "audio"}])]}, "messages[0].content[0]", "of type image"),
        ({"messages": [turn("user", [{"type": "image", "url": "x"}])]}, "messages[0].content[0]", "of type image"),
        ({"messages": [turn("user", [IMAGE])]}, "messages[0].content", "a non-empty string"),
        ({"messages": [turn("user", [TEXT, IMAGE, TEXT])]}, "messages[0].content", "before the text or after it"),
        ({"messages": [turn("user", [IMAGE, TEXT, IMAGE])]}, "messages[0].content", "before the text or after it"),
        ({"messages": [turn("system", [IMAGE, TEXT])]}, "messages[0].content", "images in the first user turn"),
        (
            {
                "messages": [
                    turn("user", ASK),
                    turn("assistant", "x"),
                    turn("user", [IMAGE, TEXT]),
                    turn("assistant", "x"),
                ]
            },
            "messages",
            "images in the first user turn",
        ),
        (
            {"messages": [turn("user", [IMAGE, TEXT]), turn("assistant", "x")], "image": ["a.png"]},
            "image",
            "without a path",
        ),
        ({"messages": [turn("user", " ")]}, "messages[0].content", "a non-empty string"),
        ({"messages": [{**turn("user", ASK), "tool_calls": [{}]}]}, "messages[0].tool_calls", "not learnt"),
        ({"messages": [turn("user", ASK), turn("assistant", "x")], "output": "y"}, "'output'", "messages alone"),
        ({"prompt": ASK}, "messages", "an assistant turn last"),
        ({"completion": ANSWER}, "prompt", "a text or a list of messages"),
        ({"messages": [turn("user", "a\x00"), turn("assistant", "x")]}, "instruction", "control characters"),
    ],
)
def test_what_does_not_fit_is_said(row, place, expected):
    rows, (problem, *_) = read(row)
    assert rows == []
    assert f"train.jsonl:1 {place}: seen" in problem
    assert expected in problem


def test_unlabelled_messages_end_with_the_question():
    content = json.dumps({"messages": [turn("system", SYSTEM), turn("user", ASK)]}).encode()
    assert read_unlabelled(content, "unlabelled.jsonl").rows == [(1, Unlabelled(SYSTEM, ASK))]
    content = json.dumps({"messages": [turn("user", ASK), turn("assistant", ANSWER)]}).encode()
    assert "no answers" in str(read_unlabelled(content, "unlabelled.jsonl").problems[0])


@pytest.fixture
def as_parquet(make_package):
    """A package and one with the same rows as Parquet, also where an input or choices are missing."""
    rows = [
        {
            "instruction": SYSTEM,
            "input": f"thing {n}" if n % 3 else None,
            "output": f"c{n}",
            "choices": [f"c{n}", "d"] if n % 2 else None,
        }
        for n in range(300)
    ]
    for split, part in (("train", rows[:200]), ("validation", rows[200:250]), ("test", rows[250:])):
        for number, row in enumerate(part):
            row["instruction"] = f"{SYSTEM} {split} {number}"
    splits = {"train": rows[:200], "validation": rows[200:250], "test": rows[250:]}
    lines = {name: [{k: v for k, v in row.items() if v is not None} for row in part] for name, part in splits.items()}
    plain, other = make_package("plain", **lines), make_package("other")
    for split, part in splits.items():
        (other / f"{split}.jsonl").unlink()
        pq.write_table(pa.Table.from_pylist(part), other / f"{split}.parquet", compression="zstd")
    return plain, other


def test_parquet_holds_the_same_rows(as_parquet):
    plain, other = (read_package(folder) for folder in as_parquet)
    assert plain.splits == other.splits
    assert not other.cut


def test_parquet_of_messages(make_package):
    folder = make_package()
    rows = [{"messages": [turn("user", f"{ASK} {n}"), turn("assistant", ANSWER)]} for n in range(5)]
    (folder / "train.jsonl").unlink()
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    assert read_package(folder).splits["train"][4] == Example(f"{ASK} 4", None, ANSWER)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"instruction": ["a"], "output": [1]}, "train.parquet:1 output: seen 1, expected a string"),
        ({"instruction": ["a"], "output": ["b"], "idx": [7]}, "an unknown field"),
        ({"instruction": ["a", None], "output": ["b", "c"]}, "train.parquet:2 instruction: seen no such field"),
        ({"instruction": ["a"], "output": ["x" * 300_000]}, "a text of 300000 characters"),
    ],
)
def test_parquet_is_read_as_strictly(make_package, table, said):
    folder = make_package()
    (folder / "train.jsonl").unlink()
    pq.write_table(pa.table(table), folder / "train.parquet")
    with pytest.raises(PackageError) as error:
        read_package(folder)
    assert said in str(error.value)


def test_half_a_parquet_file_is_refused(as_parquet):
    _, other = as_parquet
    file = other / "train.parquet"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(PackageError, match="a whole Parquet file"):
        read_package(other)


def test_a_text_that_repeats_stays_small_and_its_sum_is_limited(make_package, monkeypatch):
    """A few kB on disk that would be 400 MB as rows."""
    folder = make_package()
    (folder / "train.jsonl").unlink()
    rows = 2_000
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 200_000]))
    table = pa.table({"instruction": pa.array(["a"] * rows), "output": texts})
    pq.write_table(table, folder / "train.parquet", compression="zstd")
    assert (folder / "train.parquet").stat().st_size < 10_000
    monkeypatch.setattr(parquet, "MAX_FILE_BYTES", 1_000_000)
    with pytest.raises(PackageError, match=r"train.parquet: seen more than 1000000 characters, at row 5"):
        read_package(folder)


@pytest.mark.parametrize(
    ("row", "images"),
    [
        ({"messages": [turn("user", [IMAGE, TEXT]), turn("assistant", ANSWER)]}, ["a.png"]),
        ({"messages": [turn("user", [TEXT, IMAGE]), turn("assistant", ANSWER)]}, ["a.png"]),
        ({"messages": [turn("user", [{"type": "image", "path": "b.png"}, IMAGE, TEXT]), turn("assistant", ANSWER)]},
         ["b.png", "a.png"]),
        ({"messages": [turn("user", [OPEN, OPEN, TEXT]), turn("assistant", ANSWER)], "image": ["a.png", "b.png"]},
         ["a.png", "b.png"]),
        ({"messages": [turn("user", ASK), turn("assistant", ANSWER)], "image": "a.png"}, "a.png"),
        ({"prompt": ASK, "completion": ANSWER, "image": "a.png"}, "a.png"),
        ({"prompt": [turn("user", [IMAGE, TEXT])], "completion": [turn("assistant", ANSWER)]}, ["a.png"]),
        ({"messages": [turn("user", [{"type": "image", "image": "a.png", "text": None}, {**TEXT, "image": None}]),
                       turn("assistant", ANSWER)]}, ["a.png"]),
    ],
)  # fmt: skip
def test_images_in_chat_are_the_rows_images(row, images):
    made = layouts.plain(row, needs_output=True).row
    assert made == {"instruction": ASK, "output": ANSWER, "image": images}


def test_images_of_a_conversation_stand_before_all_of_it():
    turns = [turn("user", [IMAGE, TEXT]), turn("assistant", "x"), turn("user", "And now?"), turn("assistant", ANSWER)]
    made = layouts.plain({"messages": turns}, needs_output=True).row
    assert made["image"] == ["a.png"]
    assert made["instruction"] == f"User: {ASK}\nAssistant: x\nUser: And now?"
