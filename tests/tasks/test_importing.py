"""Packages from nothing and from data sets as hubs and `datasets` write them."""

import gzip
import io
import json
import shutil
from dataclasses import replace
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.storage.objects import digest_of
from components.tasks.columns import Columns
from components.tasks.conversion import Reading
from components.tasks.importing import FolderTaken, import_folder, skeleton
from components.tasks.package import read_package
from components.tasks.problems import PackageError

PICTURES = [np.random.default_rng(n).integers(0, 256, (8, 8, 3), dtype=np.uint8) for n in range(40)]
HEAD = {"name": "mood", "version": "1", "owner": "demo", "description": "The mood of a text.", "licence": "CC0-1.0"}
LABELS = {"info": {"features": {"text": {"_type": "Value"}, "label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
COLUMNS = Columns("Which mood?", {"input": "text", "output": "label"})


def table(split: str, rows: int) -> pa.Table:
    made = pa.table({"text": [f"{split} {n}" for n in range(rows)], "label": [n % 2 for n in range(rows)]})
    return made.replace_schema_metadata({b"huggingface": json.dumps(LABELS).encode()})


def hub(folder):
    (folder / "data").mkdir(parents=True)
    for number in range(2):
        pq.write_table(table(f"train{number}", 30), folder / "data" / f"train-0000{number}-of-00002.parquet")
    pq.write_table(table("dev", 10), folder / "data" / "dev-00000-of-00001.parquet")
    pq.write_table(table("test", 10), folder / "data" / "test-00000-of-00001.parquet")


def saved(folder):
    for split, rows in (("train", 60), ("validation", 10), ("test", 10)):
        (folder / split).mkdir(parents=True)
        made = table(split, rows)
        path = folder / split / "data-00000-of-00001.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, made.schema) as stream:
            stream.write_table(made)
        (folder / split / "state.json").write_text("{}")


@pytest.mark.parametrize("write", [hub, saved])
def test_class_labels_become_names_and_choices(tmp_path, write):
    write(tmp_path / "set")
    made = import_folder(tmp_path / "set", tmp_path / "mood", HEAD, COLUMNS).package
    assert {split: len(rows) for split, rows in made.splits.items()} == {"train": 60, "validation": 10, "test": 10}
    assert made.task.choices == ("neg", "pos")
    assert made.splits["train"][1].to_row() | {"input": ""} == {
        "instruction": "Which mood?",
        "input": "",
        "output": "pos",
    }
    assert read_package(tmp_path / "mood").splits == made.splits


def test_one_file_of_messages_needs_no_columns(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": f"a {n}"}]}
        for n in range(60)
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = import_folder(tmp_path / "chats.jsonl", tmp_path / "mood", HEAD, Columns()).package
    assert sum(map(len, made.splits.values())) == 60
    assert made.cut == ("test", "validation")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (Columns("x", {"input": "txt", "output": "label"}), "a column for input: one of label, text"),
        (Columns(), "--input text --output label"),
        (Columns("x", {"input": "text"}), "no answer in any row; the columns are label, text"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(tmp_path, columns, said):
    hub(tmp_path / "set")
    with pytest.raises(PackageError, match=said):
        import_folder(tmp_path / "set", tmp_path / "mood", HEAD, columns)
    assert not (tmp_path / "mood").exists()


def test_a_folder_without_a_training_split_is_no_data_set(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("rows.parquet", "more.parquet"):
        (tmp_path / "set" / name).write_bytes(b"")
    with pytest.raises(PackageError, match="no file that is named after a training split"):
        import_folder(tmp_path / "set", tmp_path / "mood", HEAD, COLUMNS)


def test_a_skeleton_is_a_package_and_overwrites_nothing(tmp_path):
    made = skeleton(tmp_path / "mood", {**HEAD, "choices": ["low", "high"]})
    assert made.task.choices == ("low", "high")
    before = (tmp_path / "mood" / "train.jsonl").read_bytes()
    with pytest.raises(FolderTaken, match="nothing is overwritten"):
        skeleton(tmp_path / "mood", HEAD)
    assert (tmp_path / "mood" / "train.jsonl").read_bytes() == before
    with pytest.raises(PackageError, match="name"):
        skeleton(tmp_path / "other", {**HEAD, "name": "No Name"})
    assert not (tmp_path / "other").exists()


def png(number: int) -> bytes:
    made = io.BytesIO()
    Image.fromarray(PICTURES[number]).save(made, "PNG")
    return made.getvalue()


def shows(package) -> bool:
    """Whether every row shows the picture of its number, which stands in its output."""
    rows = [row for split in package.splits.values() for row in split]
    right = [np.array_equal(row.images[0].pixels(), PICTURES[int(row.output)]) for row in rows]
    return all(right) and len(right) == len(PICTURES)


def test_images_of_a_column_become_files(tmp_path):
    (tmp_path / "set").mkdir()
    shown = [{"bytes": png(n), "path": f"{n}.png"} for n in range(40)]
    pq.write_table(pa.table({"img": shown, "n": [str(n) for n in range(40)]}), tmp_path / "set" / "train.parquet")
    columns = Columns("Which?", {"image": "img", "output": "n"})
    made = import_folder(tmp_path / "set", tmp_path / "seen", HEAD, columns).package
    assert shows(read_package(tmp_path / "seen"))
    assert set(made.files) - {"task.yaml", "train.jsonl"} == {f"images/{digest_of(png(n))}.png" for n in range(40)}


def test_images_beside_the_rows_are_copied(tmp_path):
    source = tmp_path / "set"
    (source / "pictures").mkdir(parents=True)
    for n in range(40):
        (source / "pictures" / f"{n}.png").write_bytes(png(n))
    rows = [{"img": f"pictures/{n}.png", "n": str(n)} for n in range(40)]
    (source / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = Columns("Which?", {"image": "img", "output": "n"})
    assert shows(import_folder(source, tmp_path / "seen", HEAD, columns).package)


@pytest.mark.parametrize("layout", ["images of the row", "image of the part"])
def test_images_of_chats_become_files(tmp_path, layout):
    rows = []
    for n in range(40):
        held = {"bytes": png(n), "path": None}
        part = {"type": "image"} if layout == "images of the row" else {"type": "image", "image": held}
        turns = [
            {"role": "user", "content": [part, {"type": "text", "text": "Which?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": str(n)}]},
        ]
        rows.append({"messages": turns, **({"images": [held]} if layout == "images of the row" else {})})
    (tmp_path / "set").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / "train.parquet")
    assert shows(import_folder(tmp_path / "set", tmp_path / "seen", HEAD, Columns()).package)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "linked/outside.png", "gone.png", "text.png"])
def test_images_outside_the_folder_or_none_are_refused(tmp_path, name):
    source = tmp_path / "set"
    source.mkdir()
    (tmp_path / "outside.png").write_bytes(png(0))
    (source / "linked").symlink_to(tmp_path)
    (source / "text.png").write_text("no image")
    (source / "train.jsonl").write_text(json.dumps({"img": name, "n": "0"}) + "\n")
    with pytest.raises(PackageError, match=r"train.jsonl:1 image: seen .*, expected a path"):
        import_folder(source, tmp_path / "seen", HEAD, Columns("Which?", {"image": "img", "output": "n"}))
    assert not (tmp_path / "seen").exists()


def chat(number: int, **more: object) -> dict:
    return {"role": "user", "content": f"q {number}"}, {"role": "assistant", "content": f"a {number}", **more}


OWN, PLAIN = Columns(), Reading()


def imported(folder, rows, columns=OWN, reading=PLAIN, name="train.jsonl", header=HEAD):
    """A package of rows that were written as JSON Lines (lists and objects) or as they are (bytes)."""
    content = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / "set").mkdir(exist_ok=True)
    (folder / "set" / name).write_bytes(content)
    shutil.rmtree(folder / "made", ignore_errors=True)
    return import_folder(folder / "set", folder / "made", header, columns, reading)


def refusal(folder, *args, **named) -> str:
    with pytest.raises(PackageError) as caught:
        imported(folder, *args, **named)
    assert not (folder / "made").exists()
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])


def everything(made) -> list:
    """All examples of a package, whatever split they were cut into."""
    return [example for rows in made.package.splits.values() for example in rows]


def plain(count: int) -> list[dict]:
    return [{"instruction": "Which mood?", "input": f"text {n}", "output": "good"} for n in range(count)]


@pytest.mark.parametrize(
    ("row", "example"),
    [
        (
            lambda n: {"messages": [*chat(n)], "prompt": "q", "prompt_id": "7", "category": "chat"},
            ("q {n}", None, "a {n}"),
        ),
        (lambda n: {"messages": [*chat(n)], "tools": "[]", "system": None}, ("q {n}", None, "a {n}")),
        (lambda n: {"messages": [*chat(n, tool_calls=[], function_call=None)]}, ("q {n}", None, "a {n}")),
        (lambda n: {"messages": [{"role": "system", "content": ""}, *chat(n)]}, ("q {n}", None, "a {n}")),
        (
            lambda n: {"messages": [{"role": "developer", "content": "Be brief."}, *chat(n)]},
            ("Be brief.", "q {n}", "a {n}"),
        ),
        (
            lambda n: {
                "system": "Be brief.",
                "conversations": [{"from": "human", "value": f"q {n}"}, {"from": "gpt", "value": f"a {n}"}],
            },
            ("Be brief.", "q {n}", "a {n}"),
        ),
        (
            lambda n: [{"from": "human", "value": f"q {n}"}, {"from": "gpt", "value": f"a {n}"}],
            ("q {n}", None, "a {n}"),
        ),
        (lambda n: {"instruction": f"q {n}", "input": "", "output": f"a {n}", "history": []}, ("q {n}", None, "a {n}")),
        (lambda n: {"instruction": f"q {n}", "input": None, "output": n, "id": n}, ("q {n}", None, "{n}")),
    ],
)
def test_rows_of_other_programs_are_read_without_columns_named(tmp_path, row, example):
    made = imported(tmp_path, [row(n) for n in range(60)], reading=Reading({"test": "none"}))
    expected = {tuple(part and part.format(n=n) for part in example) for n in range(60)}
    assert {(e.instruction, e.input, e.output) for e in everything(made)} == expected


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"messages": [*chat(1)], "tools": [{"type": "function"}]},
            "tools: seen [{'type': 'function'}], expected none: tool calls",
        ),
        ({"messages": [*chat(1, weight=0)]}, "messages[1].weight: seen 0 on the answer"),
        ({"messages": [*chat(1, reasoning_content="so")]}, "messages[1].reasoning_content"),
        ({"instruction": "a", "output": "b", "system": "Be brief."}, "system: seen 'Be brief.'"),
        ({"instruction": "a", "output": "b", "history": [["c", "d"]]}, "history"),
        ({"prompt": "a", "completion": "b", "label": False}, "label: seen False"),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"}]},
            "tool calls are not learnt",
        ),
        ({"question": "a", "answer": "b"}, "--instruction-column question --output answer"),
        (
            {"instruction": "a", "context": "b", "response": "c"},
            "--instruction-column instruction --input context --output response",
        ),
        ({"text": "a", "label": 1}, "--input text --output label"),
    ],
)
def test_what_a_row_would_lose_or_leave_open_is_refused_by_name(tmp_path, row, says):
    assert says in refusal(tmp_path, [row] * 3)


def test_a_thing_is_said_once_with_the_rows_of_the_users_own_file(tmp_path):
    said = refusal(tmp_path, [{"instruction": "a", "output": ""}] * 50 + plain(50))
    assert said.count("seen") == 1
    assert "train.jsonl:1 output: seen '', expected a non-empty string (50 rows: 1, 2, 3, 4, 5, ...)" in said
    assert "package" not in said


@pytest.mark.parametrize("faulty", [9, 11])
def test_a_few_faulty_rows_are_set_aside_and_more_are_refused(tmp_path, faulty):
    rows = plain(1_000)
    for row in rows[:faulty]:
        row["input"] += " \x92"
    if faulty > 10:
        assert f"{faulty} of 1000 rows have a fault; up to 1.0%" in refusal(tmp_path, rows)
        assert len(everything(imported(tmp_path, rows, reading=Reading(set_aside=0.02)))) == 1_000 - faulty
        return
    made = imported(tmp_path, rows)
    assert len(everything(made)) == 1_000 - faulty
    (problem,) = made.set_aside
    assert (problem.file, problem.line, problem.count) == ("train.jsonl", 1, faulty)
    assert any(f"({faulty} rows: 1, 2, 3, 4, 5, ...)" in remark for remark in made.remarks)
    assert any("likely mojibake" in remark for remark in made.remarks)


def test_texts_of_a_wrong_code_page_are_named_and_mended_where_asked(tmp_path):
    rows = [{**row, "input": f"caf\u00c3\u00a9 {n}, it\x92s"} for n, row in enumerate(plain(60))]
    assert "60 rows: likely mojibake; `--repair` mends it, such as caf\u00c3\u00a9 for caf\u00e9" in refusal(
        tmp_path, rows
    )
    mended = imported(tmp_path, rows, reading=Reading(repair=True))
    assert {e.input for e in everything(mended)} == {f"caf\u00e9 {n}, it\u2019s" for n in range(60)}
    latin = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain(60)).encode() + (
        '{"instruction": "Which mood?", "input": "caf\u00e9", "output": "good"}\n'.encode("cp1252")
    )
    assert "train.jsonl:61: seen byte 0xe9 that is not UTF-8" in refusal(tmp_path, latin)
    assert "caf\u00e9" in {e.input for e in everything(imported(tmp_path, latin, reading=Reading(repair=True)))}
    wide = "".join(json.dumps(row) + "\n" for row in plain(60)).encode("utf-16")
    assert "UTF-16" in refusal(tmp_path, wide)
    assert len(everything(imported(tmp_path, wide, reading=Reading(repair=True)))) == 60


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbftext;label\r\n"one; two";NA\r\n"line\r\nbreak";NA\r\n'
        + b"".join(b"t%d;NA\r\n" % n for n in range(60)),
        b'text\tlabel\none; two\tNA\n"line\nbreak"\tNA\n' + b"".join(b"t%d\tNA\n" % n for n in range(60)),
    ],
)
def test_csv_is_text_as_it_stands(tmp_path, content):
    made = imported(tmp_path, content, Columns("Which?", {"input": "text", "output": "label"}), name="train.csv")
    assert {e.output for e in everything(made)} == {"NA"}
    assert {"one; two", "line\nbreak", "t7"} <= {e.input for e in everything(made)}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"text,text\na,b\n", "two columns of this name"),
        (b"text,label\na\n", "1 fields, expected 2"),
        (b'text,label\n"a,b\n', "texts in double quotes"),
        (b"text,label\n", "0 rows"),
        (b"text,label\ncaf\xe9,b\n", "not UTF-8"),
    ],
)
def test_csv_that_means_nothing_sure_is_refused(tmp_path, content, says):
    assert says in refusal(tmp_path, content, Columns("Which?", {"input": "text", "output": "label"}), name="train.csv")


def test_options_may_be_a_list_or_columns_and_answers_may_name_them(tmp_path):
    rows = [{"question": f"q {n}", "choices": [f"w{n}", f"x{n}"], "answer": n % 2} for n in range(60)]
    columns = Columns(None, {"instruction": "question", "output": "answer"}, choices=("choices",))
    made = imported(tmp_path, rows, columns)
    assert {(e.instruction, e.choices, e.output) for e in everything(made)} == {
        (f"q {n}", (f"w{n}", f"x{n}"), f"{'wx'[n % 2]}{n}") for n in range(60)
    }
    assert any("written as the option" in remark for remark in made.remarks)
    sheet = b"".join(b"q %d,w%d,x%d,%s\n" % (n, n, n, b"AB"[n % 2 : n % 2 + 1]) for n in range(60))
    named = Columns(None, {"instruction": "q", "output": "right"}, choices=("A", "B"))
    again = imported(
        tmp_path, sheet, named, Reading({"train": "sheet.csv"}, ("q", "A", "B", "right")), name="sheet.csv"
    )
    assert again.package.splits == made.package.splits


def test_a_split_without_answers_is_left_out(tmp_path):
    made = table("test", 60).set_column(1, "label", pa.array([-1] * 60))
    (tmp_path / "set").mkdir()
    pq.write_table(table("train", 60), tmp_path / "set" / "train.parquet")
    pq.write_table(made.replace_schema_metadata(table("test", 1).schema.metadata), tmp_path / "set" / "test.parquet")
    made = import_folder(tmp_path / "set", tmp_path / "made", HEAD, COLUMNS)
    assert "test is left out: none of its 60 rows has an answer in label" in made.remarks
    assert "test" in made.package.cut
    assert not any("test " in e.input for e in everything(made))


@pytest.mark.parametrize(
    "note", [b"{", b"[]", b'{"info": {"features": []}}', b'{"info": {"features": {"messages": [{"role": {}}]}}}']
)
def test_notes_of_datasets_of_any_shape_are_no_error(tmp_path, note):
    rows = pa.Table.from_pylist([{"messages": [*chat(n)]} for n in range(60)])
    (tmp_path / "set").mkdir()
    pq.write_table(rows.replace_schema_metadata({b"huggingface": note}), tmp_path / "set" / "train.parquet")
    assert len(everything(import_folder(tmp_path / "set", tmp_path / "made", HEAD, Columns()))) == 60


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (pa.array([Decimal("7.50")]), "7.50"),
        (pa.array([date(2024, 1, 2)]), "2024-01-02"),
        (pa.array([2.5]), "2.5"),
        (pa.array([7]), "7"),
        (pa.array([b"x"]), None),
        (pa.array([{"a": 1}]), None),
        (pa.array([True]), "true"),
        (pa.array([float("nan")]), None),
        (pa.array([2**62], pa.timestamp("ns")), "2116-02-20T23:53:38.427387904"),
    ],
)
def test_values_that_are_no_text_become_text_or_are_refused(tmp_path, value, text):
    (tmp_path / "set").mkdir()
    rows = pa.table({"text": [f"t {n}" for n in range(60)], "out": pa.chunked_array([value] * 60)})
    pq.write_table(rows, tmp_path / "set" / "train.parquet")
    columns = Columns("x", {"input": "text", "output": "out"})
    if text is None:
        with pytest.raises(PackageError, match=r"train\.parquet"):
            import_folder(tmp_path / "set", tmp_path / "made", HEAD, columns)
    else:
        made = import_folder(tmp_path / "set", tmp_path / "made", HEAD, columns)
        assert {e.output for e in everything(made)} == {text}
        assert any("written as text" in remark for remark in made.remarks)


def test_test_rows_that_are_trained_on_are_set_aside_where_they_are_few(tmp_path):
    (tmp_path / "set").mkdir()
    rows = plain(200)
    (tmp_path / "set" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[99:]))
    made = imported(tmp_path, rows[:100])
    assert len(made.package.splits["test"]) == 100
    assert made.set_aside[0].line == 1
    said = refusal(tmp_path, rows[:110])
    assert "test.jsonl:1 instruction+input: seen the question of train.jsonl:100" in said


def test_links_are_followed_inside_the_cache_of_a_hub_alone(tmp_path):
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "1").write_text("".join(json.dumps(row) + "\n" for row in plain(60)))
    (snapshot / "train.jsonl").symlink_to("../../blobs/1")
    assert len(everything(import_folder(snapshot, tmp_path / "made", HEAD, Columns()))) == 60
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").symlink_to(blobs / "1")
    with pytest.raises(PackageError, match="a link to"):
        import_folder(tmp_path / "set", tmp_path / "other", HEAD, Columns())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n", "git lfs pull"),
        (b'{"instruction": "a", "output": "b", "output": "c"}\n', "the key 'output' twice"),
        (b'{"instruction": "a", "output": NaN}\n', "NaN"),
        (b'{"instruction": "a", "output": "b",}\n', "property name"),
        (b'{"instruction": "a \\ud83d", "output": "b"}\n', "half of one"),
        (b'{"instruction": ' + b"[" * 900 + b"]" * 900 + b', "output": "b"}\n', "nesting"),
        (b'{"instruction": ' + b"[" * 50_000 + b"\n", "nesting"),
        (b"7\n8\n", "a JSON object"),
    ],
)
def test_import_reads_as_strictly_as_packages_are_read(tmp_path, content, says):
    assert says in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"data": [{"instruction": "a"}],\n "version": 1}', "an object with 'data', 'version'"),
        (b'[{"instruction": "a", "output": "b"},\n 7]', "a JSON object in each place"),
        (b'[{"instruction": "a",\n "output": "b"\n', "train.json:3"),
        (b"[]", "0 rows"),
    ],
)
def test_json_that_is_no_array_of_rows_is_named(tmp_path, content, says):
    assert says in refusal(tmp_path, content, name="train.json")


def test_gzip_is_unpacked_and_a_bomb_is_not(tmp_path, monkeypatch):
    rows = "".join(json.dumps(row) + "\n" for row in plain(60)).encode()
    assert len(everything(imported(tmp_path, gzip.compress(rows), name="train.jsonl.gz"))) == 60
    assert "a whole gzip file" in refusal(tmp_path, gzip.compress(rows)[:-9], name="train.jsonl.gz")
    monkeypatch.setattr("components.tasks.foreign.MAX_FILE_BYTES", 500)
    assert "more than 500 bytes, unpacked" in refusal(tmp_path, gzip.compress(b" " * 9_000), name="train.jsonl.gz")


def test_a_header_that_does_not_fit_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(PackageError, match="name: seen 'No Name'"):
        import_folder(tmp_path / "nothing", tmp_path / "made", {**HEAD, "name": "No Name"}, Columns())


def quiz(answers: list, options: list[str] | dict) -> list[dict]:
    return [{"question": f"q {n}", "choices": options, "answer": answer} for n, answer in enumerate(answers * 20)]


QUIZ = Columns(None, {"instruction": "question", "output": "answer"}, choices=("choices",))


@pytest.mark.parametrize(
    ("answers", "options", "texts"),
    [
        ([3, 0, 1], ["0", "3", "4", "5"], ["5", "0", "3"]),  # by place throughout, though 3 is also a text
        (["3", "0", "1"], ["0", "3", "4", "5"], ["5", "0", "3"]),
        ([1, 2, 3], ["w", "x", "y"], ["w", "x", "y"]),
        (["a", "C"], ["w", "x", "y"], ["w", "y"]),
        (["y", "w "], ["w", "x", "y"], ["y", "w"]),
        (["2", "3"], {"text": ["w", "x", "y"], "label": ["1", "2", "3"]}, ["x", "y"]),
        (["B"], {"A": "w", "B": "x"}, ["x"]),
    ],
)
def test_answers_name_options_in_one_way_that_fits_all_rows(tmp_path, answers, options, texts):
    made = imported(tmp_path, quiz(answers, options), QUIZ)
    expected = {f"q {n}": text for n, text in enumerate(texts * 20)}
    assert {e.instruction: e.output for e in everything(made)} == expected


@pytest.mark.parametrize(
    ("answers", "options", "says"),
    [
        ([1, 2], ["w", "x", "y"], "an answer 1 that may mean 'x' by its place, counted from 0, or 'w' by its place"),
        ([0, 1], ["1", "0"], "`--answers text` or `--answers 0`"),
        (["E", "A"], ["w", "x"], "answers such as 'E'"),
    ],
)
def test_answers_that_may_mean_several_options_are_a_question(tmp_path, answers, options, says):
    assert says in refusal(tmp_path, quiz(answers, options), QUIZ)
    if says.startswith("an answer 1"):
        made = imported(tmp_path, quiz(answers, options), replace(QUIZ, answers="1"))
        assert {e.output for e in everything(made)} == {"w", "x"}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"choices": ["w", "x"]}, "choices: seen options that nothing reads, expected `--choices choices`"),
        ({"A": "w", "B": "x", "C": "y"}, "`--choices A,B,C`, or `--ignore A,B,C`"),
        ({"system": "Be brief."}, "`lcia import --ignore system` leaves it out"),
    ],
)
def test_columns_that_change_what_a_row_means_are_not_left_out_unasked(tmp_path, row, says):
    columns = Columns(None, {"instruction": "question", "output": "answer"})
    rows = [{"question": f"q {n}", "answer": "w", "id": n, **row} for n in range(60)]
    assert says in refusal(tmp_path, rows, columns)
    made = imported(tmp_path, rows, replace(columns, ignore=tuple(row)))
    assert "60 rows: a column `id` that nothing reads: left out" in made.remarks


def test_answers_that_no_training_row_has_are_refused_where_answers_are_labels(tmp_path):
    (tmp_path / "set").mkdir()
    rows = [{"text": f"t {n}", "label": n % 2} for n in range(60)]
    (tmp_path / "set" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = [{"text": f"u {n}", "label": ("bad", "good")[n % 2]} for n in range(60)]
    said = refusal(tmp_path, train, Columns("Which mood?", {"input": "text", "output": "label"}))
    assert "test.jsonl:1 output: seen '0', expected an answer of the training rows: 'bad', 'good' (60 rows:" in said


@pytest.mark.parametrize("unlabelled", [3, 30])
def test_rows_of_minus_one_among_numbered_labels_have_no_answer(tmp_path, unlabelled):
    rows = [{"text": f"t {n}", "label": -1 if n < unlabelled else n % 2} for n in range(400)]
    columns = Columns("Which mood?", {"input": "text", "output": "label"})
    if unlabelled == 30:
        assert "-1, which says that there is no label" in refusal(tmp_path, rows, columns)
    else:
        assert {e.output for e in everything(imported(tmp_path, rows, columns))} == {"0", "1"}


def test_inner_fields_several_columns_and_lists_are_read(tmp_path):
    rows = [{"a": f"a {n}", "b": f"b {n}", "answers": {"text": [f"x {n}", "y"], "start": [1, 2]}} for n in range(60)]
    made = imported(tmp_path, rows, Columns("Which?", {"input": "a,b", "output": "answers.text"}))
    assert {(e.input, e.output) for e in everything(made)} == {(f"a: a {n}\nb: b {n}", f"x {n}") for n in range(60)}
    assert "60 rows: answers.text holds several texts: the first is taken" in made.remarks
    rows = [{"chat": json.dumps([*chat(n)]), "n": n} for n in range(60)]
    made = imported(tmp_path, rows, Columns(messages="chat"))
    assert {e.output for e in everything(made)} == {f"a {n}" for n in range(60)}


def test_columns_that_go_without_saying_need_no_option(tmp_path):
    rows = [{"input": f"i {n}", "output": f"o {n}"} for n in range(60)]
    assert {e.input for e in everything(imported(tmp_path, rows, Columns("Which?")))} == {f"i {n}" for n in range(60)}


def test_tabs_without_quotes_keep_every_line(tmp_path):
    lines = [f"t {n} said\tgood" for n in range(60)]
    lines[10], lines[30] = '"t 10 began\tgood', 't 30 film" ended\tgood'
    content = ("text\tlabel\n" + "\n".join(lines) + "\n").encode()
    made = imported(tmp_path, content, Columns("Which?", {"input": "text", "output": "label"}), name="train.tsv")
    assert len(everything(made)) == 60
    assert '"t 10 began' in {e.input for e in everything(made)}


def test_a_header_for_a_file_that_has_one_is_refused(tmp_path):
    content = b"text,label\n" + b"".join(b"t %d,good\n" % n for n in range(60))
    columns = Columns("Which?", {"input": "text", "output": "label"})
    assert "leave out --header" in refusal(
        tmp_path, content, columns, Reading(header=("text", "label")), name="train.csv"
    )
