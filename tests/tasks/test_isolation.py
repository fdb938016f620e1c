"""Files from outside are read by a process that can reach nothing; what it needs too much of is a refusal."""

import json
import os
import socket
import sys
import threading
from pathlib import Path

import pytest
from hostile_files import PROGRAM, package, repeating_parquet, with_flat_images

from components.settings import PackageSettings
from components.storage.objects import ObjectStore
from components.tasks import images, isolation, parser_process
from components.tasks import package as package_module
from components.tasks.columns import Columns
from components.tasks.conversion import NAMED_SPLITS, ImportRefused, Reading
from components.tasks.package import read_package
from components.tasks.problems import PackageError
from components.tasks.quarantine import package_digest
from components.tasks.snapshot import take_snapshot

only_on_linux = pytest.mark.skipif(sys.platform != "linux", reason="seccomp and Landlock are Linux's")
BUDGET = PackageSettings(memory_mb=512, seconds=60)


@pytest.fixture
def attack(tmp_path, store, monkeypatch):
    """Run code in place of the reader, as if hostile bytes had taken it over; returns what it says, or the refusal."""

    def run(code: str, budget: PackageSettings = BUDGET) -> str:
        file = tmp_path / "attack.py"
        indented = "".join(f"    {line}\n" for line in code.strip().splitlines())
        file.write_text(f"def attack(request, out):\n{indented}", encoding="utf-8")
        monkeypatch.setattr(parser_process, "PROGRAM", (PROGRAM.format(file=str(file)), parser_process.PROGRAM[1]))
        try:
            isolation.take(package(tmp_path / "honest"), store, budget, tmp_path / "scratch")
        except (PackageError, parser_process.ParserBroken, images.ImageRefused) as error:
            return str(error)
        raise AssertionError("the attack was not even noticed")

    return run


def said(error: str) -> str:
    """What the code raised, out of the refusal's words."""
    return error.split("seen ", 1)[1].split(", expected", 1)[0]


def test_the_same_package_gives_the_same_snapshot_and_the_same_files(tmp_path, store):
    folder = package(tmp_path / "p")
    other = ObjectStore(f"file://{tmp_path}/other")
    taken = isolation.take(folder, store, BUDGET, tmp_path / "scratch")
    assert taken.snapshot.digest == take_snapshot(read_package(folder), other).digest
    assert taken.package == package_digest(folder)
    assert store.folder_files(taken.package).keys() == {"task.yaml", "train.jsonl", "validation.jsonl", "test.jsonl"}
    assert taken.snapshot.rows("train") == read_package(folder).splits["train"]
    assert not list((tmp_path / "scratch").iterdir())


def test_refusals_come_through_word_by_word(tmp_path, store):
    folder = package(tmp_path / "p", rows=3, output="")
    with pytest.raises(PackageError) as here:
        read_package(folder)
    with pytest.raises(PackageError) as there:
        isolation.take(folder, store, BUDGET, tmp_path / "scratch")
    assert str(there.value) == str(here.value)
    assert there.value.problems == here.value.problems
    assert not list(store.objects())


def test_nothing_is_stored_for_an_owner_that_may_not_submit(tmp_path, store):
    def nobody(owner: str) -> None:
        raise PermissionError(owner)

    with pytest.raises(PermissionError, match="demo"):
        isolation.take(package(tmp_path / "p"), store, BUDGET, tmp_path / "scratch", check_owner=nobody)
    assert not list(store.objects())


def test_no_reader_runs_in_the_process_that_asks(tmp_path, store, monkeypatch):
    """Service, worker, command line and steps hold secrets; the readers are only called where there are none."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("read in the process that has the secrets")

    for module, name in ((package_module, "_read"), (images, "plain_pixels"), (package_module, "read_rows")):
        monkeypatch.setattr(module, name, never)
    folder = with_flat_images(tmp_path / "p", 3, side=8)
    taken = isolation.take(folder, store, BUDGET, tmp_path / "scratch")
    assert [row.images[0].pixels().shape for row in taken.snapshot.rows("train")] == [(8, 8, 3)] * 3
    made = isolation.import_data(folder, tmp_path / "made", {**HEADER}, Columns(), NAMED_SPLITS, BUDGET)
    assert made["rows"] == {"train": 3, "validation": 3, "test": 3}
    (shown,) = isolation.pictures([("a.png", (folder / "images" / "0.png").read_bytes())], BUDGET)
    assert shown.pixels().shape == (8, 8, 3)


HEADER = {"name": "made", "version": "1", "owner": "demo", "description": "Made.", "licence": "CC0-1.0"}


def test_the_environment_and_the_open_files_of_the_one_who_asks_are_not_there(attack, tmp_path, monkeypatch):
    monkeypatch.setenv("LCIA_SESSION_SECRET", "very secret")
    monkeypatch.setenv("PGPASSWORD", "also secret")
    key = tmp_path / "key"
    key.write_text("secret", encoding="utf-8")
    handle = os.open(key, os.O_RDONLY)
    os.set_inheritable(handle, True)
    try:
        seen = said(
            attack(
                """
import os
names = sorted(set(os.environ) - set(KNOWN))
files = []
for number in range(64):
    try:
        files.append((number, os.read(number, 0) is not None and number > 2))
    except OSError:
        pass
raise ValueError(f"{names} {[n for n, other in files if other]}")
""".replace("KNOWN", repr({*parser_process.ENVIRONMENT, "TMPDIR"}))
            )
        )
    finally:
        os.close(handle)
    assert "[] []" in seen


@only_on_linux
def test_files_of_the_one_who_asks_can_not_be_read_or_written(attack, tmp_path):
    key = tmp_path / "audit-key.pem"
    key.write_text("secret", encoding="utf-8")
    for call in (
        f"open({str(key)!r}).read()",
        f"open({str(key)!r}, 'a')",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import os; os.rename({str(key)!r}, request['work'] + '/key')",
        f"import os; os.link({str(key)!r}, request['work'] + '/key')",
        f"import os; os.symlink({str(key)!r}, request['work'] + '/key')",
        f"import os; print(os.listdir({str(tmp_path)!r}))",
        "open('/etc/passwd').read()",
        f"open('/proc/{os.getpid()}/environ').read()",
        f"open('/proc/{os.getpid()}/mem', 'rb')",
    ):
        words = attack(call)
        assert "PermissionError" in words or "Errno 18" in words, call  # a link to another folder's file
        _again(tmp_path)
    assert key.read_text(encoding="utf-8") == "secret"


def _again(tmp_path: Path) -> None:
    import shutil

    shutil.rmtree(tmp_path / "honest")


def test_python_opens_no_socket_and_starts_no_process(attack, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        for call in (
            f"import socket; socket.create_connection({server.getsockname()!r})",
            "import subprocess; subprocess.run(['id'])",
            "import os; os.fork()",
            "import os; os.execv('/bin/sh', ['sh'])",
            f"import os; os.kill({os.getpid()}, 0)",
        ):
            assert "not for a process that reads files" in attack(call), call
            _again(tmp_path)


@only_on_linux
@pytest.mark.parametrize(
    "call",
    [
        "socket(2, 1, 0)",
        "socketpair(1, 1, 0, ctypes.create_string_buffer(8))",
        "fork()",
        "vfork()",
        "execv(b'/bin/sh', None)",
        "kill({pid}, 0)",
        "ptrace(16, {pid}, None, None)",
        "process_vm_readv({pid}, None, 0, None, 0, 0)",
        "unshare(0x10000000)",
        "syscall(425, 8, ctypes.create_string_buffer(256))",
        "shmget(0, 4096, 0o1600)",
    ],
)
def test_native_code_opens_no_socket_and_starts_no_process_either(attack, call):
    """What Python's own checks can't see is refused by the kernel."""
    code = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nfound = libc.{call.format(pid=os.getpid())}\n"
    assert "(-1, 1)" in said(attack(f"{code}raise ValueError((found, ctypes.get_errno()))"))


def test_memory_beyond_the_budget_is_a_refusal_that_names_it(attack):
    error = attack("b = [bytearray(1 << 24) for _ in range(1 << 20)]", PackageSettings(memory_mb=256, seconds=60))
    assert "seen more memory than it may take, expected at most packages.memory_mb = 256" in error


def test_a_process_that_dies_is_a_refusal(attack, tmp_path):
    for call, how in (("os.abort()", "SIG"), ("os._exit(3)", "exit status 3")):
        assert f"on which the process that reads them ended ({how}" in attack(f"import os; {call}")
        _again(tmp_path)


def test_endless_work_and_endless_waiting_end_with_the_budget(attack, tmp_path):
    short = PackageSettings(seconds=2)
    assert "packages.seconds = 2" in attack("import time\nwhile True: pass", short)
    _again(tmp_path)
    assert "packages.seconds = 2" in attack("import time; time.sleep(600)", short)


def test_a_file_of_any_size_is_not_written(attack):
    code = "f = open(request['work'] + '/f', 'wb')\nf.truncate(1 << 40)"
    assert "File too large" in attack(code)


@pytest.mark.parametrize(
    "code",
    [
        "out.write(b'H' + (1 << 31).to_bytes(4, 'big')); out.flush()",
        "out.write(b'Q\\0\\0\\0\\0'); out.flush()",
        "frames = parser.frames; frames.send(out, frames.HEADER, b'[1, 2'); out.flush()",
        "frames = parser.frames; frames.send(out, frames.HEADER, {'task': {'name': '../x'}})",
        HONEST := """
frames = parser.frames
task = {"name": "a", "version": "1", "owner": "demo", "description": "d", "licence": "l"}
frames.send(out, frames.HEADER, {"task": task, "cut": [], "remarks": [], "answer_limit_derived": False})
""" + "frames.send(out, frames.IMAGE, b'RIFF....WEBPVP8L' + bytes(100))",
        HONEST.replace("IMAGE, b'RIFF....WEBPVP8L' + bytes(100)", "FILE, {'name': '../key', 'size': 1}"),
        HONEST.replace("IMAGE, b'RIFF....WEBPVP8L' + bytes(100)", "FILE, {'name': 'a', 'size': 1 << 40}"),
        HONEST.replace("IMAGE, b'RIFF....WEBPVP8L' + bytes(100)", "SPLIT, {'split': 'train', 'rows': 1 << 40}"),
        HONEST.replace("IMAGE, b'RIFF....WEBPVP8L' + bytes(100)", "END"),
    ],
)  # fmt: skip
def test_what_a_taken_over_process_says_is_checked(attack, store, code):
    words = attack(code)
    assert "the parser sent" in words or "answered" in words or "no stored image" in words
    assert not list(store.objects())


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "a", "output": 1},
        {"instruction": "a"},
        {"instruction": "a", "output": "b", "other": "c"},
        {"instruction": "a", "output": "\x1b[31m"},
        {"instruction": "a", "output": "b", "image": ["0" * 64]},
        {"instruction": "a", "output": "b", "choices": []},
    ],
)
def test_rows_of_a_taken_over_process_are_rows(attack, row):
    code = f"""
import json
frames = parser.frames
task = {{"name": "a", "version": "1", "owner": "demo", "description": "d", "licence": "l"}}
frames.send(out, frames.HEADER, {{"task": task, "cut": [], "remarks": [], "answer_limit_derived": False}})
frames.send(out, frames.SPLIT, {{"split": "train", "rows": 1}})
frames.send(out, frames.ROWS, json.dumps({row!r}).encode() + b"\\n")
"""
    assert "the parser sent a row" in attack(code)


@only_on_linux
def test_what_confines_the_process_is_known(tmp_path, store):
    held = isolation.take(package(tmp_path / "p"), store, BUDGET, tmp_path / "scratch").confinement
    assert {name.split()[0] for name in held} >= {"limits", "seccomp"}


@pytest.mark.parametrize("kind", ["large_string", "list", "struct", "messages"])
def test_a_small_parquet_file_that_unpacks_to_gigabytes_is_refused(tmp_path, store, kind):
    folder = package(tmp_path / "p")
    (folder / "train.jsonl").unlink()
    (folder / "train.parquet").write_bytes(repeating_parquet(kind))
    with pytest.raises(PackageError, match=r"train\.parquet: seen more than \d+ characters"):
        isolation.take(folder, store, BUDGET, tmp_path / "scratch")


def test_pixels_have_a_total(tmp_path, store):
    folder = with_flat_images(tmp_path / "p", 6, side=1000)
    with pytest.raises(PackageError, match=r"at most packages\.megapixels"):
        isolation.take(folder, store, PackageSettings(megapixels=5), tmp_path / "scratch")
    assert not list(store.objects())
    isolation.take(folder, store, PackageSettings(megapixels=6), tmp_path / "scratch")


def test_images_that_are_small_as_files_are_small_as_objects(tmp_path, store):
    """24 files of some kilobytes were gigabytes as bare pixels."""
    folder = with_flat_images(tmp_path / "p", 24, side=512)
    isolation.take(folder, store, BUDGET, tmp_path / "scratch")
    assert sum(file.size for file in store.objects()) < 24 * 512 * 512 * 3 / 100


def test_no_more_readers_run_at_a_time_than_memory_is_planned_for(tmp_path, store, monkeypatch):
    monkeypatch.setattr(parser_process, "_TURNS", threading.BoundedSemaphore(1))
    short = PackageSettings(seconds=2)

    def ask_for_another(_: str) -> None:
        isolation.take(package(tmp_path / "second"), store, short, tmp_path / "scratch")

    with pytest.raises(parser_process.ParserBusy, match="being read already"):
        isolation.take(package(tmp_path / "first"), store, short, tmp_path / "scratch", check_owner=ask_for_another)
    isolation.take(tmp_path / "second", store, BUDGET, tmp_path / "scratch")


def test_a_snapshot_of_a_hub_cache_and_a_split_elsewhere_are_read_and_nothing_beside_them(tmp_path):
    rows = [{"instruction": "Name it.", "input": str(n), "output": f"colour {n}"} for n in range(40)]
    cache, elsewhere = tmp_path / "datasets--a", tmp_path / "elsewhere"
    for folder in (cache / "blobs", cache / "snapshots" / "1", elsewhere):
        folder.mkdir(parents=True)
    lines = ["\n".join(map(json.dumps, part)) for part in (rows[:30], rows[30:])]
    (cache / "blobs" / "x").write_text(lines[0], encoding="utf-8")
    (elsewhere / "held.jsonl").write_text(lines[1], encoding="utf-8")
    (cache / "snapshots" / "1" / "train.jsonl").symlink_to("../../blobs/x")
    named = Reading({"test": str(elsewhere / "held.jsonl")})
    source = cache / "snapshots" / "1"
    made = isolation.import_data(source, tmp_path / "made", HEADER, Columns(), named, BUDGET)
    assert (made["folder"], made["rows"]["test"]) == (str(tmp_path / "made"), 10)
    assert read_package(tmp_path / "made").task.name == "made"
    (source / "train.jsonl").unlink()
    (source / "train.jsonl").symlink_to(elsewhere / "held.jsonl")
    with pytest.raises(ImportRefused) as error:
        isolation.import_data(source, tmp_path / "again", HEADER, Columns(), NAMED_SPLITS, BUDGET)
    assert "a file of the data set itself: copy it there" in str(error.value)
    assert not (tmp_path / "again").exists()
