"""Whatever goes wrong ends in one message that says what to do and what was recorded; a traceback goes to a file."""

import errno
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from other_user import lcia_as_other, only_as_root
from small_loop import SmallLoop
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from components.errors import LciaError
from lcia import failures
from lcia.operations.table import OPERATIONS

if TYPE_CHECKING:
    from tests.cli.conftest import Lcia

LCIA = Path(sys.executable).with_name("lcia")
LOOKS = ["status", "tasks", "candidates", "show 1", "lineage 1", "matrix --version 1", "audit show", "audit verify"]


@pytest.fixture
def failing() -> Iterator[Callable[[Exception], None]]:
    """Let `lcia status` fail with an error."""
    operation = OPERATIONS["status"]
    kept = operation.run

    def fail_with(error: Exception) -> None:
        def fail(*_: object) -> None:
            raise error

        object.__setattr__(operation, "run", fail)

    yield fail_with
    object.__setattr__(operation, "run", kept)


UNFORESEEN = [
    (KeyError("gone"), "unforeseen KeyError: 'gone'; run the same command again"),
    (RecursionError("too deep"), "nested too deeply"),
    (MemoryError(), "out of memory"),
    (ImportError("no libx.so", name="libx"), "libx can't be loaded (no libx.so); `make setup`"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "unforeseen UnicodeDecodeError"),
    (OSError(errno.EIO, "Input/output error", "/srv/x"), "/srv/x: Input/output error; look at the file, the disk"),
]


@pytest.mark.parametrize(("error", "words"), UNFORESEEN, ids=[type(one).__name__ for one, _ in UNFORESEEN])
def test_what_nobody_foresaw_is_a_message_and_a_file(
    lcia: "Lcia", fresh: SmallLoop, failing: Callable[[Exception], None], error: Exception, words: str
) -> None:
    failing(error)
    ended = lcia(fresh, "status")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("lcia: ")
    assert words in ended.err
    (file,) = (fresh.home / "errors").iterdir()
    assert f"the details are in {file}" in ended.err
    assert "Traceback (most recent call last):" in file.read_text(encoding="utf-8")
    assert file.stat().st_mode & 0o077 == 0


CLEAR = [
    (OSError(errno.ENOSPC, "No space left on device", "/srv/objects/x"), "disk full: /srv/objects/x can't be written"),
    (PermissionError(errno.EACCES, "Permission denied", "/srv/x"), "/srv/x can't be opened or changed by user"),
    (OSError(errno.EROFS, "Read-only file system", "/srv/x"), "(Read-only file system); run it as the owner"),
]


@pytest.mark.parametrize(("error", "words"), CLEAR, ids=[errno.errorcode[one.errno or 0] for one, _ in CLEAR])
def test_what_says_it_all_needs_no_file(
    lcia: "Lcia", fresh: SmallLoop, failing: Callable[[Exception], None], error: Exception, words: str
) -> None:
    failing(error)
    ended = lcia(fresh, "status")
    assert ended.code == 1
    assert words in ended.err
    assert "nothing was recorded in the log since this command began" in ended.err
    assert not (fresh.home / "errors").exists()


def test_what_was_recorded_before_the_disk_was_full_is_named(
    lcia: "Lcia", pending: SmallLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lcia.instance import Instance

    def full(_: Instance) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/srv/mlflow")

    monkeypatch.setattr(Instance, "tell_registry", full)
    ended = lcia(pending, "approve", "1", "--as", "ops", "--reason", "seen")
    assert ended.code == 1
    assert "disk full: /srv/mlflow" in ended.err
    assert "recorded in the log since this command began: candidate.approved" in ended.err
    assert (
        lcia(pending, "audit", "show", "--kind", "candidate.approved", "--json").json[0]["details"]["reason"] == "seen"
    )


@only_as_root
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        environment = {**os.environ, "LCIA_HOME": str(disk / "state")}
        first = _lcia(["people", "add", "ada"], environment)
        assert first.returncode == 0, first.stderr
        (disk / "ballast").write_bytes(b"x" * shutil.disk_usage(disk).free)
        last = first
        for number in range(200):
            last = _lcia(["people", "add", f"{'b' * 150}{number}"], environment)
            if last.returncode:
                break
        assert last.returncode == 1
        assert "disk full" in last.stderr
        assert "Traceback" not in last.stderr
        assert _lcia(["people"], environment).stdout.startswith("ada")
    finally:
        subprocess.run(["umount", disk], check=True)


def _lcia(argv: list[str], environment: dict[str, str], **more: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([LCIA, *argv], env=environment, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("verb", [*LOOKS, "approve 1 --reason r", "sync"])
def test_every_verb_names_a_later_schema(lcia: "Lcia", pending: SmallLoop, verb: str) -> None:
    with pending.open().db.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'later'"))
    ended = lcia(pending, *verb.split())
    assert ended.code == 1
    assert "has schema later" in ended.err
    assert "Install that version" in ended.err


def test_doctor_finds_a_later_schema(lcia: "Lcia", pending: SmallLoop) -> None:
    with pending.open().db.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'later'"))
    ended = lcia(pending, "doctor", "--quick", "--json")
    (problem,) = [one for one in ended.json["findings"] if one["verdict"] == "problem"]
    assert (ended.code, problem["check"]) == (1, "database")
    assert "has schema later" in problem["words"]


@only_as_root
def test_verbs_that_look_work_on_a_state_they_cannot_write(pending: SmallLoop) -> None:
    shutil.copy(pending.config, pending.home.parent / "zenml.yaml")
    for verb in LOOKS:
        ended = lcia_as_other(pending.home, *verb.split())
        assert (ended.returncode, ended.stderr) == (0, ""), verb
    for verb in ("reject 1 --reason r", "people add ada", "flips 1"):
        ended = lcia_as_other(pending.home, *verb.split())
        assert ended.returncode == 1, verb
        assert re.search(r"is read-only for user \d+, and this verb writes; run it as the owner", ended.stderr), verb
    found = lcia_as_other(pending.home, "doctor", "--quick")
    assert "can't be written" in found.stdout
    assert "Error" not in found.stdout


def test_a_stream_without_the_signs_gets_escapes(pending: SmallLoop) -> None:
    environment = {**os.environ, "LCIA_HOME": str(pending.home), "PYTHONIOENCODING": "ascii"}
    assert _lcia(["people", "add", "Zoë日本"], environment).stdout == "Zo\\xeb\\u65e5\\u672c: no role\n"
    assert '"Zo\\u00eb\\u65e5\\u672c"' in _lcia(["people", "--json"], environment).stdout
    refused = _lcia(["people", "grant", "né", "admin"], environment)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)


def test_output_that_nobody_reads_ends_quietly(pending: SmallLoop) -> None:
    environment = {**os.environ, "LCIA_HOME": str(pending.home)}
    reading, writing = os.pipe()
    os.close(reading)
    closed = subprocess.run([LCIA, "status"], env=environment, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (closed.returncode, closed.stderr) == (1, b"")
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([LCIA, "status"], env=environment, stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"lcia: disk full")
    assert b"Traceback" not in ended.stderr


def test_a_thread_that_fails_is_a_message_too(lcia: "Lcia", fresh: SmallLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # what `main` sets ends with the test

    def begin(*_: object) -> None:
        thread = threading.Thread(target=lambda: {}["gone"])
        thread.start()
        thread.join()
        raise LciaError("the work itself ended otherwise")

    monkeypatch.setattr("lcia.instance.Instance.open", begin)
    ended = lcia(fresh, "status")
    first, *_, last = ended.err.splitlines()
    assert first.startswith("lcia: unforeseen KeyError: 'gone'")
    assert last == "lcia: the work itself ended otherwise"
    assert len([*(fresh.home / "errors").iterdir()]) == 1


def test_an_error_of_another_database_is_told_in_words():
    reason = sqlite3.OperationalError("attempt to write a readonly database")
    broken = OperationalError("UPDATE experiments SET x = 1", {}, reason)
    assert failures.explain(broken).startswith("database of MLflow or ZenML is read-only for user ")
