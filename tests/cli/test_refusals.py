"""Packages from outside: refused with file, line and field, quarantined, nothing else changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_loop import ROWS, TASKS, Learnt, SmallLoop, rewrite_row, write_package

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia

MOVIE, PRODUCT, _ = TASKS


def _not_json(package: Path) -> None:
    file = package / "train.jsonl"
    file.write_text(file.read_text(encoding="utf-8") + '{"instruction": "x", \n', encoding="utf-8")


def _wrong_encoding(package: Path) -> None:
    file = package / "validation.jsonl"
    file.write_bytes(b'{"instruction": "Caf\xe9?", "output": "positive"}\n' + file.read_bytes())


def _missing_field(package: Path) -> None:
    rewrite_row(package / "train.jsonl", output=None)


def _empty_output(package: Path) -> None:
    rewrite_row(package / "test.jsonl", output="  ")


def _test_row_in_train(package: Path) -> None:
    trained = (package / "train.jsonl").read_text(encoding="utf-8").splitlines()[2]
    file = package / "test.jsonl"
    file.write_text(file.read_text(encoding="utf-8") + trained + "\n", encoding="utf-8")


def _path_that_leaves(package: Path) -> None:
    file = package / "task.yaml"
    file.write_text("splits:\n  train: ../train.jsonl\n" + file.read_text(encoding="utf-8"), encoding="utf-8")


def _unknown_key(package: Path) -> None:
    file = package / "task.yaml"
    file.write_text("colour: red\n" + file.read_text(encoding="utf-8"), encoding="utf-8")


def _no_rows(package: Path) -> None:
    (package / "test.jsonl").write_text("", encoding="utf-8")


REFUSED: list[tuple[Callable[[Path], None], str, list[str]]] = [
    (_not_json, f"train.jsonl:{ROWS['train'] + 1}", ["JSON"]),
    (_wrong_encoding, "validation.jsonl:1", ["UTF-8"]),
    (_missing_field, "train.jsonl:1", ["output"]),
    (_empty_output, "test.jsonl:1", ["output"]),
    (_test_row_in_train, f"test.jsonl:{ROWS['test'] + 1}", ["instruction+input", "train.jsonl:3", "remove one"]),
    (_path_that_leaves, "task.yaml:2", ["splits.train", "../train.jsonl"]),
    (_unknown_key, "task.yaml:1", ["colour", "unknown key"]),
    (_no_rows, "test.jsonl", ["row"]),
]


@pytest.fixture(scope="module")
def unharmed(learnt: Learnt, tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    """One loop for all refusals: none of them may change it."""
    return learnt.loop.copy(tmp_path_factory.mktemp("unharmed"))


@pytest.mark.parametrize(("break_it", "where", "words"), REFUSED, ids=[case[0].__name__[1:] for case in REFUSED])
@pytest.mark.parametrize("verb", ["submit", "run"])
def test_a_broken_package_is_refused(
    lcia: "Lcia",
    unharmed: SmallLoop,
    tmp_path: Path,
    verb: str,
    break_it: Callable[[Path], None],
    where: str,
    words: list[str],
) -> None:
    package = write_package(tmp_path, MOVIE, first=60, version="2")
    break_it(package)
    bytes_before = {file.name: file.read_bytes() for file in package.iterdir()}
    before = lcia(unharmed, "status", "--json").json
    ended = lcia(unharmed, verb, package, "--as", "site")
    assert ended.code == 1
    assert ended.out == ""
    for word in (where, *words):
        assert word in ended.err
    folder = Path(ended.err.partition("The report is in ")[2].partition(";")[0])
    assert folder.parent == unharmed.home / "quarantine"
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    file, _, line = where.partition(":")
    assert any(p["file"] == file and (not line or p["line"] == int(line)) for p in report["problems"])
    assert where in (folder / "report.txt").read_text(encoding="utf-8")
    assert lcia(unharmed, "status", "--json").json == before
    assert lcia(unharmed, "audit", "verify").code == 0
    assert {file.name: file.read_bytes() for file in package.iterdir()} == bytes_before


def test_no_package_at_all(lcia: "Lcia", unharmed: SmallLoop, tmp_path: Path) -> None:
    ended = lcia(unharmed, "submit", tmp_path / "nothing", "--as", "site")
    assert ended.code == 1
    assert "no such folder" in ended.err


def test_the_same_package_twice_is_recognised(lcia: "Lcia", fresh: SmallLoop, tmp_path: Path) -> None:
    first = lcia(fresh, "submit", fresh.package(MOVIE), "--as", "site", "--json")
    assert (first.code, first.json["known"], first.json["state"]) == (0, False, "submitted")
    entries = lcia(fresh, "status", "--json").json["audit"]["entries"]
    again = lcia(fresh, "submit", fresh.package(MOVIE), "--as", "other", "--json")
    assert (again.code, again.json["known"], again.json["id"]) == (0, True, first.json["id"])
    copy = shutil.copytree(fresh.package(MOVIE), tmp_path / "elsewhere")
    for file in copy.glob("*.jsonl"):  # other white space, other key order, same rows
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        other = [json.dumps(dict(reversed(row.items())), separators=(" , ", " : ")) for row in rows]
        file.write_text("\n".join(other) + "\n", encoding="utf-8")
    elsewhere = lcia(fresh, "submit", copy, "--as", "site")
    assert elsewhere.code == 0
    assert "is known already (task 1, submitted" in elsewhere.out
    assert lcia(fresh, "status", "--json").json["audit"]["entries"] == entries


def test_other_content_under_a_known_name_is_refused(lcia: "Lcia", fresh: SmallLoop) -> None:
    assert lcia(fresh, "submit", fresh.package(MOVIE), "--as", "site").code == 0
    rewrite_row(fresh.package(MOVIE) / "train.jsonl", input="Another film altogether.")
    ended = lcia(fresh, "submit", fresh.package(MOVIE), "--as", "site")
    assert ended.code == 1
    assert "needs a new `version` in task.yaml" in ended.err


def test_the_worker_refuses_what_only_the_data_checks_find(lcia: "Lcia", champion: SmallLoop, tmp_path: Path) -> None:
    """Test rows of a new task that an earlier task trained on: refused by the pipeline, exit 1, with a report."""
    package = write_package(tmp_path / "more", MOVIE, first=60, version="2")
    shutil.copy(champion.package(MOVIE) / "train.jsonl", package / "test.jsonl")
    before = lcia(champion, "status", "--json").json
    ended = lcia(champion, "run", package, "--as", "site", "--json")
    assert ended.code == 1
    assert ended.json["state"] == "refused"
    folder = Path(ended.json["reason"].partition("the report is in ")[2])
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["problems"]
    after = lcia(champion, "status", "--json").json
    assert after["champion"] == before["champion"]
    assert after["candidates"] == before["candidates"]
