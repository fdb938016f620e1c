"""Which files of a data set are which split: taken where one is meant, asked about where several could be."""

import pytest

from components.tasks.sources import SourceUnclear, find


def tree(folder, *names: str):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return folder


def taken(folder, **named) -> dict[str, list[str]]:
    source = find(folder, named)
    return {split: [source.name(path) for path in paths] for split, paths in source.splits.items()}


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (
            ["train.jsonl", "dev.jsonl", "test.jsonl"],
            {"train": ["train.jsonl"], "validation": ["dev.jsonl"], "test": ["test.jsonl"]},
        ),
        (["Train.csv", "TEST.csv"], {"train": ["Train.csv"], "test": ["TEST.csv"]}),
        (["train.json.gz", "README.md", ".gitattributes"], {"train": ["train.json.gz"]}),
        (
            ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
            {"train": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]},
        ),
        (
            ["data/train-00000-of-00001-7b4d1a7f1ad4a2b3.parquet"],
            {"train": ["data/train-00000-of-00001-7b4d1a7f1ad4a2b3.parquet"]},
        ),
        (
            ["train/0000.parquet", "train/0001.parquet", "test/0000.parquet"],
            {"train": ["train/0000.parquet", "train/0001.parquet"], "test": ["test/0000.parquet"]},
        ),
        (
            ["state.json", "dataset_info.json", "data-00000-of-00002.arrow", "data-00001-of-00002.arrow"],
            {"train": ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]},
        ),
        (
            [
                "train/data-00000-of-00001.arrow",
                "train/state.json",
                "test/data-00000-of-00001.arrow",
                "test/state.json",
            ],
            {"train": ["train/data-00000-of-00001.arrow"], "test": ["test/data-00000-of-00001.arrow"]},
        ),
        (["train_sft.jsonl"], {"train": ["train_sft.jsonl"]}),
        (["alpaca_data.json", "README.md"], {"train": ["alpaca_data.json"]}),
        (["main/train-00000-of-00001.parquet"], {"train": ["train-00000-of-00001.parquet"]}),
    ],
)
def test_files_are_taken_by_their_names(tmp_path, files, splits):
    assert taken(tree(tmp_path, *files)) == splits


@pytest.mark.parametrize(
    ("files", "split", "seen"),
    [
        (["train.jsonl", "test.jsonl", "test_socratic.jsonl"], "test", "test.jsonl, test_socratic.jsonl"),
        (["train_sft.jsonl", "train_gen.jsonl"], "train", "train_gen.jsonl, train_sft.jsonl"),
        (["train.jsonl", "train.parquet"], "train", "train.jsonl, train.parquet"),
        (["train.jsonl", "train.csv.gz"], "train", "train.csv.gz, train.jsonl"),
        (["train.jsonl", "train.bak.jsonl"], "train", "train.bak.jsonl, train.jsonl"),
        (["train.jsonl", "validation_matched.jsonl", "validation_mismatched.jsonl"], "validation", "2 sets"),
        (["train.jsonl", "dev.jsonl", "val.jsonl"], "validation", "dev.jsonl, val.jsonl"),
        (["train.jsonl", "data/train.jsonl"], "train", "train.jsonl, data/train.jsonl"),
        (["train_2020.jsonl", "train_2021.jsonl"], "train", "2 sets"),
        (
            ["data/train_sft-00000-of-00001.parquet", "data/train_gen-00000-of-00001.parquet"],
            "train",
            "data/train_gen-*.parquet",
        ),
    ],
)
def test_several_files_that_could_be_meant_are_a_question(tmp_path, files, split, seen):
    with pytest.raises(SourceUnclear) as caught:
        find(tree(tmp_path, *files), {})
    (problem,) = caught.value.problems
    assert problem.file == split
    assert seen in problem.seen
    assert f"--split {split}=" in problem.expected


def test_the_question_is_answered_by_a_path_a_pattern_or_none(tmp_path):
    tree(
        tmp_path,
        "data/train_sft-00000-of-00002.jsonl",
        "data/train_sft-00001-of-00002.jsonl",
        "data/train_gen-00000-of-00001.jsonl",
        "data/test.jsonl",
        "data/test_b.jsonl",
    )
    sft = ["data/train_sft-00000-of-00002.jsonl", "data/train_sft-00001-of-00002.jsonl"]
    assert taken(tmp_path, train="data/train_sft-*.jsonl", test="data/test_b.jsonl") == {
        "train": sft,
        "test": ["data/test_b.jsonl"],
    }
    assert taken(tmp_path, train="data/train_sft-*.jsonl", test="none") == {"train": sft}
    assert find(tmp_path, {"train": "data/train_gen-*.jsonl", "test": "none"}).others == (
        "data/test.jsonl",
        "data/test_b.jsonl",
        *sft,
    )


@pytest.mark.parametrize(
    ("files", "named", "says"),
    [
        (["a.jsonl", "b.jsonl"], {}, "no file that is named after a training split: a.jsonl; b.jsonl"),
        (["dev.jsonl", "test.jsonl"], {}, "validation: dev.jsonl; test: test.jsonl"),
        (["de/data/v1/train.jsonl"], {}, "files lie deeper, such as de/data/v1/train.jsonl"),
        (["datasets--o--n/snapshots/abc/train.jsonl"], {}, "name the snapshot inside"),
        ([], {}, "no file of a known format"),
        (["book.xlsx"], {}, "save the sheet as CSV"),
        (["train.pkl"], {}, "can run code"),
        (["train.jsonl"], {"test": "gone.jsonl"}, "no file 'gone.jsonl' for test"),
        (["train.jsonl", "t.xlsx"], {"test": "t.xlsx"}, "save the sheet as CSV"),
        (["train.jsonl"], {"exam": "train.jsonl"}, "expected one of train, validation, test, unlabelled"),
        (["data/train-00000-of-00003.parquet", "data/train-00002-of-00003.parquet"], {}, "numbered as parts of 3"),
        (["main/train.jsonl", "socratic/train.jsonl"], {}, "2 folders with splits: main, socratic"),
        (["snapshots/abc/train.jsonl"], {}, "name the snapshot inside"),
    ],
)
def test_what_is_not_clear_says_what_to_do(tmp_path, files, named, says):
    with pytest.raises(SourceUnclear) as caught:
        find(tree(tmp_path / "set", *files) if files else tmp_path, named)
    assert says in str(caught.value)
