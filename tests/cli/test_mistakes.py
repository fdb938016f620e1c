"""docs/mistakes.md is true: every command says what its line tells, without a traceback, and changes nothing."""

import re
import shlex
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_loop import Learnt, SmallLoop, rewrite_row, write_package

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia

PAGE = Path(__file__).parents[2] / "docs" / "mistakes.md"
MOVIE = "movie_sentiment"


def _lines(section: str) -> list[tuple[str, str]]:
    """Commands and messages of the table in a section of the page."""
    text = PAGE.read_text(encoding="utf-8").split(f"## {section}")[1].partition("\n## ")[0]
    return re.findall(r"^\| `lcia (.+?)` \| (.+) \|$", text, re.MULTILINE)


LEARNT, WAITS = _lines("Three tasks learnt"), _lines("Version 1 waits")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and files that the page describes."""
    folder = tmp_path_factory.mktemp("mistakes")
    made = {name: write_package(folder / "made" / name, MOVIE, first=60, version="2") for name in ("good", "typo")}
    made |= {
        name: write_package(folder / "made" / name, MOVIE, first=60, version="2") for name in ("badrow", "nolabel")
    }
    made["changed"] = write_package(folder / "made" / "changed", MOVIE, first=90)
    for name, package in made.items():
        package.rename(folder / name)
    shutil.copytree(folder / "good", folder / "no_yaml").joinpath("task.yaml").unlink()
    (folder / "typo" / "task.yaml").open("a", encoding="utf-8").write("colour: red\n")
    (folder / "badrow" / "train.jsonl").open("a", encoding="utf-8").write('{"instruction": "x"\n')
    rewrite_row(folder / "nolabel" / "test.jsonl", output="maybe")
    (folder / "notes.txt").write_text("some text\n", encoding="utf-8")
    (folder / "notes.zip").write_text("some text\n", encoding="utf-8")
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("../up.txt", "x")
    (folder / "wrong.yaml").write_text("tuning:\n  stepz: 3\n", encoding="utf-8")
    (folder / "full").mkdir()
    (folder / "full" / "file").touch()
    return folder


@pytest.fixture(scope="module")
def three(learnt: Learnt, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallLoop]:
    """One copy for all: none of the mistakes may change it."""
    return learnt.loop.copy(tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="module")
def waits(learnt: Learnt, tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    """The same, where the first version waits for people."""
    return learnt.pending.copy(tmp_path_factory.mktemp("waits"))


def test_the_page_has_thirty_mistakes() -> None:
    assert len({command for command, _ in [*LEARNT, *WAITS]}) >= 30
    verbs = {command.split()[0] for command, _ in [*LEARNT, *WAITS]}
    assert len(verbs) >= 20


@pytest.mark.parametrize(("command", "message"), LEARNT, ids=[command for command, _ in LEARNT])
def test_with_three_tasks_learnt(lcia: "Lcia", three: SmallLoop, work: Path, command: str, message: str) -> None:
    _mistaken(lcia, three, work, command, message)


@pytest.mark.parametrize(("command", "message"), WAITS, ids=[command for command, _ in WAITS])
def test_while_version_1_waits(lcia: "Lcia", waits: SmallLoop, work: Path, command: str, message: str) -> None:
    _mistaken(lcia, waits, work, command, message)


def _mistaken(lcia: "Lcia", loop: SmallLoop, work: Path, command: str, message: str) -> None:
    argv = [str(work / word) if (work / word).exists() and word else word for word in shlex.split(command)]
    before = _state(loop)
    ended = lcia(loop, *argv)
    assert ended.code in (1, 2), f"{command} ended with {ended.code}: {ended.out}"
    said = " ".join((ended.err + ended.out).split())
    at = 0
    for part in message.split("…"):
        found = said.find(part.strip(), at)
        assert found >= 0, f"{part.strip()!r} is not said after {said[:at]!r}; said: {said}"
        at = found + len(part.strip())
    assert "Traceback" not in said
    assert _state(loop) == before


def _state(loop: SmallLoop) -> object:
    from lcia.operations import status

    return status.status(loop.open())
