"""The inbox: what is complete, that nothing is lost or taken half, folders and buckets alike."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
from other_user import UID, only_as_root

from components.tasks import inbox as arrivals
from components.tasks.inbox import FolderInbox, InboxUnusable, StillWritten, open_inbox
from components.tasks.problems import PackageError

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
    with inbox.copy_of("b.zip", tmp_path / "scratch") as path:
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


@pytest.fixture
def key(tmp_path) -> Path:
    """A file of ours that a sender wants written or read."""
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "audit-key.pem").write_text("secret", encoding="utf-8")
    return folder / "audit-key.pem"


@pytest.fixture
def inbox(tmp_path) -> FolderInbox:
    (tmp_path / "inbox").mkdir()
    return FolderInbox(tmp_path / "inbox", 0)


@pytest.mark.parametrize("place", ["done", "refused"])
def test_results_go_through_no_link(inbox, key, place):
    """A link as the result folder: the report would be written wherever it leads."""
    put(inbox.folder, "task", 100)
    (inbox.folder / place).symlink_to(key.parent)
    with pytest.raises(InboxUnusable, match="is a link, expected a folder that this account"):
        inbox.put_away("task", place, {"mine": True})
    assert [path.name for path in key.parent.iterdir()] == ["audit-key.pem"]
    assert (inbox.folder / "task").is_dir()


def test_a_link_that_waits_where_the_report_goes_is_not_written_through(inbox, key):
    """As another user's process overwrote the audit key: the link's name is that of the report to come."""
    (inbox.folder / "done").mkdir(mode=0o777)
    (inbox.folder / "done").chmod(0o777)
    (inbox.folder / "done" / "task.report.json").symlink_to(key)
    put(inbox.folder, "task", 100)
    where = inbox.put_away("task", "done", {"mine": True})
    assert key.read_text(encoding="utf-8") == "secret"
    assert Path(where).name == "task.2"
    assert json.loads(Path(f"{where}.report.json").read_text(encoding="utf-8")) == {"mine": True}
    assert not stat.S_IMODE((inbox.folder / "done").stat().st_mode) & 0o022


@only_as_root
def test_a_folder_that_another_account_dropped_is_put_aside(inbox):
    """Moving a folder writes to it, which its owner alone may: it gets a hidden name where it lies."""
    target = put(inbox.folder, "task", 100)
    for path in (target, *target.iterdir()):
        os.chown(path, UID, UID)
    os.chown(inbox.folder, UID + 1, UID)
    inbox.folder.chmod(0o1770)
    code = (
        "import sys; from pathlib import Path; from components.tasks.inbox import FolderInbox; "
        "inbox = FolderInbox(Path(sys.argv[1]), 0); print(inbox.put_away('task', 'done', {'mine': True})); "
        "print(inbox.complete(1e12))"
    )
    who = ["setpriv", f"--reuid={UID + 1}", f"--regid={UID}", "--clear-groups", "--inh-caps=+dac_read_search"]
    ended = subprocess.run(
        [*who, "--ambient-caps=+dac_read_search", sys.executable, "-c", code, inbox.folder],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "HOME": "/"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.stdout.splitlines() == [str(inbox.folder / ".done-task"), "[]"], ended.stderr
    assert (inbox.folder / ".done-task" / "task.yaml").exists()
    told = json.loads((inbox.folder / "done" / "task.report.json").read_text(encoding="utf-8"))
    assert told == {"mine": True, "left_in_inbox_as": ".done-task"}


@only_as_root
def test_a_result_folder_of_another_account_is_not_used(inbox, key):
    (inbox.folder / "done").mkdir()
    (inbox.folder / "done" / "task.report.json").symlink_to(key)
    os.chown(inbox.folder / "done", UID, UID)
    put(inbox.folder, "task", 100)
    with pytest.raises(InboxUnusable, match=f"a folder of another account .uid {UID}."):
        inbox.put_away("task", "done", {"mine": True})
    assert key.read_text(encoding="utf-8") == "secret"


def test_a_package_that_is_swapped_for_a_link_after_it_was_listed_is_not_read(inbox, key, tmp_path):
    package = put(inbox.folder, "task", 100)
    assert inbox.complete(NOW) == ["task"]
    (package / "task.yaml").unlink()
    package.rmdir()
    package.symlink_to(key.parent)
    with pytest.raises(PackageError, match="'task': seen a link"), inbox.copy_of("task", tmp_path / "scratch"):
        pytest.fail("read")


@pytest.mark.parametrize("inner", ["train.jsonl", "images/1.png"])
def test_a_file_inside_that_is_a_link_is_not_read(inbox, key, tmp_path, inner):
    package = put(inbox.folder, "task", 100)
    (package / inner).parent.mkdir(exist_ok=True)
    (package / inner).symlink_to(key)
    with pytest.raises(PackageError, match=f"'{inner}': seen a link"), inbox.copy_of("task", tmp_path / "scratch"):
        pytest.fail("read")


def test_a_folder_inside_that_is_a_link_is_not_read(inbox, key, tmp_path):
    (put(inbox.folder, "task", 100) / "images").symlink_to(key.parent)
    with pytest.raises(PackageError, match="'images': seen a link"), inbox.copy_of("task", tmp_path / "scratch"):
        pytest.fail("read")


def test_a_second_name_of_a_file_of_ours_is_not_read(inbox, key, tmp_path):
    os.link(key, put(inbox.folder, "task", 100) / "train.jsonl")
    with pytest.raises(PackageError, match="several names"), inbox.copy_of("task", tmp_path / "scratch"):
        pytest.fail("read")


def test_a_pipe_holds_nobody_up(inbox, tmp_path):
    os.mkfifo(put(inbox.folder, "task", 100) / "train.jsonl")
    with pytest.raises(PackageError, match="no regular file"), inbox.copy_of("task", tmp_path / "scratch"):
        pytest.fail("read")


def test_what_is_read_is_a_copy_that_nobody_can_exchange(inbox, key, tmp_path):
    package = put(inbox.folder, "task", 100)
    with inbox.copy_of("task", tmp_path / "scratch") as copy:
        (package / "task.yaml").unlink()
        (package / "task.yaml").symlink_to(key)
        assert (copy / "task.yaml").read_text(encoding="utf-8") == "name: a\n"
        assert not copy.is_relative_to(inbox.folder)
    assert not list((tmp_path / "scratch").iterdir())


def test_a_package_that_changes_while_it_is_copied_waits(inbox, tmp_path, monkeypatch):
    package = put(inbox.folder, "task", 100)
    plain = arrivals._Copy._file

    def slowly(self, handle, target, name):
        plain(self, handle, target, name)
        (package / "train.jsonl").write_text("more", encoding="utf-8")

    monkeypatch.setattr(arrivals._Copy, "_file", slowly)
    with pytest.raises(StillWritten), inbox.copy_of("task", tmp_path / "scratch"):
        pytest.fail("half a package")


def test_an_endless_package_is_not_copied_whole(inbox, tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "MAX_FILE_BYTES", 1000)
    package = put(inbox.folder, "task", 100)
    with (package / "train.jsonl").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PackageError, match="more bytes than a package"), inbox.copy_of("task", tmp_path / "scratch"):
        pytest.fail("read")
    deep = inbox.folder / "deep"
    (deep / "/".join("abcdefghijklmnopqrst")).mkdir(parents=True)
    with pytest.raises(PackageError, match="inside each other"), inbox.copy_of("deep", tmp_path / "scratch"):
        pytest.fail("read")


def test_a_large_object_of_a_bucket_is_not_fetched_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "MAX_FILE_BYTES", 10)
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/north/b.zip", bytes(11))
    inbox = open_inbox(f"memory://{tmp_path.name}/north", 60)
    with pytest.raises(PackageError, match="more than 10 bytes"), inbox.copy_of("b.zip", tmp_path / "scratch"):
        pytest.fail("read")


def test_a_folder_by_any_name_is_a_folder_and_never_follows_links(tmp_path):
    assert isinstance(open_inbox(f"local://{tmp_path}", 60), FolderInbox)
