"""Packages from nothing and from data sets as hubs and `datasets` write them."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.storage.objects import digest_of
from components.tasks.importing import Columns, FolderTaken, import_folder, skeleton
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
    made = import_folder(tmp_path / "set", tmp_path / "mood", HEAD, COLUMNS)
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
    made = import_folder(tmp_path / "chats.jsonl", tmp_path / "mood", HEAD, Columns())
    assert sum(map(len, made.splits.values())) == 60
    assert made.cut == ("test", "validation")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (Columns("x", {"input": "txt", "output": "label"}), "a column for input: one of label, text"),
        (Columns(), "--instruction, --input and --output"),
        (Columns("x", {"input": "text"}), "output: seen no such field"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(tmp_path, columns, said):
    hub(tmp_path / "set")
    with pytest.raises(PackageError, match=said):
        import_folder(tmp_path / "set", tmp_path / "mood", HEAD, columns)
    assert not (tmp_path / "mood").exists()


def test_a_folder_without_a_training_split_is_no_data_set(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "rows.parquet").write_bytes(b"")
    with pytest.raises(PackageError, match="no file that is named after a split"):
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
    made = import_folder(tmp_path / "set", tmp_path / "seen", HEAD, Columns("Which?", {"image": "img", "output": "n"}))
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
    assert shows(import_folder(source, tmp_path / "seen", HEAD, columns))


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
    assert shows(import_folder(tmp_path / "set", tmp_path / "seen", HEAD, Columns()))


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
