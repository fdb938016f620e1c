"""Every verb that reads a file, fed with faulty ones: a message and an exit code, never an unforeseen failure."""

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from small_loop import Learnt, SmallLoop, write_package

from benchmarks.packages.data_sets import alpaca, lines, parquet
from benchmarks.packages.fuzz import mutated

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia

FILES = 25
"""Faulty files for each verb."""


@pytest.fixture(scope="module")
def loop(learnt: Learnt, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallLoop]:
    """One copy for all verbs."""
    return learnt.loop.copy(tmp_path_factory.mktemp("faulty"))


def policy(lcia: "Lcia", loop: SmallLoop, folder: Path) -> tuple[Path, list[str | Path]]:
    (folder / "new.yaml").write_text("gate: {step_margin: 0.05}\napproval: {quorum: 2}\n", encoding="utf-8")
    return folder / "new.yaml", ["policy", "propose", folder / "new.yaml", "--reason", "stricter"]


def settings(lcia: "Lcia", loop: SmallLoop, folder: Path) -> tuple[Path, list[str | Path]]:
    (folder / "zenml.yaml").write_bytes(loop.config.read_bytes())
    return folder / "zenml.yaml", ["settings", "--config", folder / "zenml.yaml"]


def log(lcia: "Lcia", loop: SmallLoop, folder: Path) -> tuple[Path, list[str | Path]]:
    lcia(loop, "audit", "export", folder / "log.jsonl")
    return folder / "log.jsonl", ["audit", "verify", folder / "log.jsonl"]


def head(lcia: "Lcia", loop: SmallLoop, folder: Path) -> tuple[Path, list[str | Path]]:
    _, argv = log(lcia, loop, folder)
    lcia(loop, "audit", "head", folder / "kept.head")
    return folder / "kept.head", [*argv, "--head", folder / "kept.head"]


def proof(lcia: "Lcia", loop: SmallLoop, folder: Path) -> tuple[Path, list[str | Path]]:
    lcia(loop, "audit", "prove", 3, "--to", folder / "a.proof")
    return folder / "a.proof", ["audit", "check-proof", folder / "a.proof"]


def statement(lcia: "Lcia", loop: SmallLoop, folder: Path) -> tuple[Path, list[str | Path]]:
    lcia(loop, "audit", "statement", 3, "--to", folder / "a.json")
    return folder / "a.json", ["audit", "check-proof", folder / "a.json"]


def image(lcia: "Lcia", loop: SmallLoop, folder: Path) -> tuple[Path, list[str | Path]]:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, "PNG")
    (folder / "a.png").write_bytes(content.getvalue())
    return folder / "a.png", ["ask", "Which colour?", "--image", folder / "a.png"]


def task(lcia: "Lcia", loop: SmallLoop, folder: Path) -> tuple[Path, list[str | Path]]:
    package = write_package(folder / "package", "booking_slot", first=60)
    return package / "task.yaml", ["submit", package]


def rows(lcia: "Lcia", loop: SmallLoop, folder: Path) -> tuple[Path, list[str | Path]]:
    package = write_package(folder / "package", "booking_slot", first=60)
    return package / "train.jsonl", ["submit", package]


def jsonl(lcia: "Lcia", loop: SmallLoop, folder: Path) -> tuple[Path, list[str | Path]]:
    (folder / "train.jsonl").write_bytes(lines([alpaca(n) for n in range(60)]))
    return folder / "train.jsonl", ["import", folder / "train.jsonl", "--name", "a", "--to", folder / "made"]


def columns(lcia: "Lcia", loop: SmallLoop, folder: Path) -> tuple[Path, list[str | Path]]:
    (folder / "train.parquet").write_bytes(parquet([alpaca(n) for n in range(60)]))
    return folder / "train.parquet", ["import", folder / "train.parquet", "--name", "a", "--to", folder / "made"]


@pytest.mark.parametrize(
    "subject",
    [policy, settings, log, head, proof, statement, image, task, rows, jsonl, columns],
    ids=lambda s: s.__name__,
)
def test_a_faulty_file_gets_a_message(lcia: "Lcia", loop: SmallLoop, tmp_path, subject):
    file, argv = subject(lcia, loop, tmp_path)
    whole = file.read_bytes()
    dice = random.Random(f"faulty-{subject.__name__}")
    contents = [b"", b"\xff" * 40, b"[" * 60_000, json.dumps(None).encode(), whole[: len(whole) // 2]]
    codes = set()
    for number in range(FILES):
        file.write_bytes(contents[number] if number < len(contents) else mutated(whole, dice))
        ended = lcia(loop, *argv)
        assert ended.code in (0, 1), (number, ended)
        assert ended.code == 0 or ended.err + ended.out, (number, ended)
        assert "unforeseen" not in ended.err, (number, ended)
        assert not list((loop.home / "errors").glob("*")), (number, ended)
        codes.add(ended.code)
    assert 1 in codes
