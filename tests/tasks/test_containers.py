"""Packages as one file: what comes out is what went in, and hostile containers are refused without a trace."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from components.tasks import containers
from components.tasks.containers import kind_of, open_package, pack
from components.tasks.package import read_package
from components.tasks.problems import PackageError
from components.tasks.quarantine import package_digest, quarantine


def tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def tar_zst(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    return pa.compress(tar(members), codec="zstd", asbytes=True)


def files_of(folder: Path) -> list[tuple[str, bytes]]:
    return sorted((p.relative_to(folder).as_posix(), p.read_bytes()) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def write(tmp_path):
    """`write(name, content)`: a container."""

    def make(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return make


@pytest.fixture
def refused(tmp_path):
    """The problems of a container, which leaves nothing behind."""

    def problems(path: Path) -> list[str]:
        before = files_of(tmp_path)
        with pytest.raises(PackageError) as error, open_package(path, tmp_path / "scratch") as folder:
            read_package(folder)
        assert files_of(tmp_path) == before
        return [str(problem) for problem in error.value.problems]

    return problems


def test_a_folder_and_its_containers_are_the_same_package(make_package, write, tmp_path):
    folder = make_package()
    zipped = write("p.zip", pack(folder)[0])
    inside = [(tarfile.TarInfo(f"./{name}"), content) for name, content in files_of(folder)]
    tarred = write("p.tar.zst", tar_zst(inside))
    for path in (folder, zipped, tarred):
        with open_package(path, tmp_path / "scratch") as found:
            assert files_of(found) == files_of(folder)
            assert package_digest(found) == package_digest(folder)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_packing_gives_the_same_bytes_every_time(make_package):
    folder = make_package()
    first, kind = pack(folder)
    os.utime(folder / "task.yaml", (1, 1))
    assert pack(folder) == (first, kind) == (first, "application/zip")


def test_a_container_is_sent_as_it_is(make_package, write):
    content, _ = pack(make_package())
    assert pack(write("p.ZIP", content)) == (content, "application/zip")
    assert [kind_of(Path(name)) for name in ("a.zip", "a.tar.zst", "a.tar.gz", "zip")] == [
        ".zip",
        ".tar.zst",
        None,
        None,
    ]


def test_the_one_folder_that_was_packed_is_entered(make_package, write, tmp_path):
    inside = [(tarfile.TarInfo(f"colours/{name}"), content) for name, content in files_of(make_package())]
    with open_package(write("p.tar.zst", tar_zst(inside)), tmp_path / "scratch") as found:
        assert read_package(found).task.name == "colours"


@pytest.mark.parametrize("top", ["", "colours/"])
def test_what_macos_adds_to_an_archive_is_no_part_of_it(make_package, write, tmp_path, top):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, content in files_of(make_package()):
            archive.writestr(f"{top}{name}", content)
            for number in range(9):  # more than a package may have files
                archive.writestr(f"__MACOSX/{top}{number}/._{name}", b"\0\5\26\7")
        archive.writestr(f"{top}.DS_Store", b"\0\0\0\1Bud1")
    with open_package(write("p.zip", raw.getvalue()), tmp_path / "scratch") as found:
        assert read_package(found).task.name == "colours"
        assert package_digest(found) == package_digest(tmp_path / "package")


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made, b""


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([member("../escaped.jsonl")], "leaves the package"),
        ([member("/etc/escaped")], "absolute"),
        ([member("a/../../escaped")], "leaves the package"),
        ([member("link", tarfile.SYMTYPE, "/etc/passwd")], "a link or special file"),
        ([member("hard", tarfile.LNKTYPE, "/etc/passwd")], "a link or special file"),
        ([member("pipe", tarfile.FIFOTYPE)], "a link or special file"),
        ([member("device", tarfile.CHRTYPE)], "a link or special file"),
        ([member("a.jsonl"), member("A.jsonl")], "twice"),
        ([member("é.jsonl"), member("e\u0301.jsonl")], "twice"),
        ([member(f"{n}.jsonl") for n in range(40)], "more than 32 files"),
    ],
)
def test_what_a_tar_may_not_hold(write, refused, members, said):
    (problem,) = refused(write("p.tar.zst", tar_zst(members)))
    assert said in problem


def zipped(*members: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped(("../escaped", b"x")), "leaves the package"),
        (zipped(("/etc/escaped", b"x")), "absolute"),
        (zipped(("a\\..\\escaped", b"x")), "not written with /"),
        (zipped(("C:escaped", b"x")), "absolute"),
        (zipped((linked("link"), b"/etc/passwd")), "a link or special file"),
        (zipped(("t.jsonl", b"x"), ("T.JSONL", b"y")), "twice"),
        (b"no zip at all", "BadZipFile"),
        (zipped(("a", b"x" * 1000))[:-30], "BadZipFile"),
    ],
    ids=["up", "root", "backslash", "drive", "link", "case", "text", "cut"],  # the bytes hold the time of day
)
def test_what_a_zip_may_not_hold(write, refused, content, said):
    (problem,) = refused(write("p.zip", content))
    assert said in problem


def test_an_encrypted_zip_is_refused(write, refused):
    content = bytearray(zipped(("task.yaml", b"x")))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    (problem,) = refused(write("p.zip", bytes(content)))
    assert "encrypted" in problem


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.zst"])
def test_a_bomb_stops_when_it_is_large_not_when_it_is_whole(write, refused, name, monkeypatch):
    monkeypatch.setattr(containers, "MAX_PACKAGE_BYTES", 3 * containers.RATIO_FROM)
    bomb = bytes(40 * containers.RATIO_FROM)
    content = (
        zipped(("train.jsonl", bomb)) if name.endswith("zip") else tar_zst([(tarfile.TarInfo("train.jsonl"), bomb)])
    )
    assert len(content) < len(bomb) / 500
    (problem,) = refused(write(name, content))
    assert "more bytes than a package holds" in problem


def test_a_header_as_large_as_a_bomb_is_not_read_whole(write, refused, monkeypatch):
    monkeypatch.setattr(containers, "MAX_PACKAGE_BYTES", containers.RATIO_FROM)
    names = tarfile.TarInfo("x")
    names.type, names.size = tarfile.GNUTYPE_LONGNAME, 40 * containers.RATIO_FROM
    content = pa.compress(names.tobuf(tarfile.GNU_FORMAT) + bytes(names.size), codec="zstd", asbytes=True)
    (problem,) = refused(write("p.tar.zst", content))
    assert "more bytes than a package holds" in problem


def test_a_refused_container_is_reported_under_its_own_digest(write, tmp_path):
    path = write("p.zip", b"no zip")
    folder = quarantine(tmp_path / "home", path, [])
    assert folder == quarantine(tmp_path / "home", write("q.zip", b"no zip"), [])
    assert folder != quarantine(tmp_path / "home", write("r.zip", b"other"), [])


def test_a_broken_header_is_not_the_end_of_the_archive(write, refused, make_package):
    """tarfile stops there without a word, and the splits after it would be cut from train."""
    members = [(tarfile.TarInfo(name), content) for name, content in files_of(make_package())]
    raw = bytearray(tar(members))
    header = raw.index(b"validation.jsonl")
    raw[header + 100] ^= 1
    (problem,) = refused(write("p.tar.zst", pa.compress(bytes(raw), codec="zstd", asbytes=True)))
    assert "a broken header" in problem
