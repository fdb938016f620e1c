"""The inbox: what is complete, that nothing is lost or taken half, folders and buckets alike."""

import json
import os
import time
from pathlib import Path

import fsspec
import pytest

from components.tasks.arrivals import FolderInbox, InboxUnusable, open_inbox

NOW = time.time()


def put(folder: Path, name: str, age: float, inner_age: float | None = None) -> Path:
    """A package of one file, last changed so many seconds ago."""
    package = folder / name
    package.mkdir(parents=True)
    (package / "task.yaml").write_text("name: a\n")
    os.utime(package / "task.yaml", (NOW - (age if inner_age is None else inner_age),) * 2)
    os.utime(package, (NOW - age,) * 2)
    return package


def test_a_folder_is_taken_when_quiet_or_when_said_to_be_ready(tmp_path):
    put(tmp_path, "old", 100)
    put(tmp_path, "young", 5)
    put(tmp_path, "being_written", 100, inner_age=5)
    put(tmp_path, "told", 5)
    (tmp_path / "told.ready").touch()
    put(tmp_path, ".hidden", 100)
    put(tmp_path, "done/earlier", 100)
    (tmp_path / "pack.zip").write_bytes(b"x")
    os.utime(tmp_path / "pack.zip", (NOW - 100,) * 2)
    assert open_inbox(str(tmp_path), 60).complete(NOW) == ["old", "pack.zip", "told"]
    assert open_inbox(f"file://{tmp_path}", 2).complete(NOW) == ["being_written", "old", "pack.zip", "told", "young"]


def test_put_away_keeps_everything_and_overwrites_nothing(tmp_path):
    inbox = FolderInbox(tmp_path, 0)
    for turn in range(3):
        put(tmp_path, "same", 100)
        (tmp_path / "same.ready").touch()
        inbox.put_away("same", "refused" if turn == 2 else "done", {"turn": turn})
    assert inbox.complete(NOW) == []
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == [
        "same", "same.2", "same.2.report.json", "same.report.json",
    ]  # fmt: skip
    assert json.loads((tmp_path / "done" / "same.2.report.json").read_text()) == {"turn": 1}
    assert (tmp_path / "refused" / "same" / "task.yaml").exists()


def test_a_bucket_holds_one_object_a_package(tmp_path):
    files = fsspec.filesystem("memory")
    url = f"memory://{tmp_path.name}/north"
    for name in ("b.zip", "a.tar.zst", "notes.txt", ".part.zip", "done/c.zip"):
        files.pipe_file(f"/{tmp_path.name}/north/{name}", name.encode())
    inbox = open_inbox(url, 60)
    assert inbox.complete(NOW) == ["a.tar.zst", "b.zip"]
    with inbox.opened("b.zip") as path:
        assert path.read_bytes() == b"b.zip"
    where = inbox.put_away("b.zip", "done", {"item": 1})
    assert files.cat_file(where) == b"b.zip"
    assert inbox.complete(NOW) == ["a.tar.zst"]
    files.pipe_file(f"/{tmp_path.name}/north/b.zip", b"again")
    assert files.cat_file(inbox.put_away("b.zip", "done", {})) == b"again"
    assert files.cat_file(where) == b"b.zip"


def test_an_inbox_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InboxUnusable, match="make it, or change"):
        open_inbox(str(tmp_path / "nowhere"), 60)
    with pytest.raises(InboxUnusable, match="can't be opened"):
        open_inbox("nosuch://bucket", 60)
    assert open_inbox("memory://nothing-here-yet", 60).complete(NOW) == []


def test_dates_of_a_source_in_the_future_do_not_keep_a_package_waiting(tmp_path):
    package = tmp_path / "task"
    package.mkdir()
    (package / "task.yaml").write_text("name: x\n", encoding="utf-8")
    moment = time.time()
    for path in (package, package / "task.yaml"):
        os.utime(path, (moment + 172_800, moment + 172_800))
    assert FolderInbox(tmp_path, 60).complete(moment) == []
    assert FolderInbox(tmp_path, 60).complete(moment + 61) == ["task"]
