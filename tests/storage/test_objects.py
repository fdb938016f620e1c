"""Objects: canonical bytes, names that are digests, whole writes, checked reads."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.storage.objects import (
    FolderRefused,
    NotCanonical,
    ObjectCorrupt,
    ObjectMissing,
    ObjectStore,
    canonical,
    digest_of,
    parse_json,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/objects")


def stored_file(tmp_path: Path, digest: str) -> Path:
    return tmp_path / "objects" / "sha256" / digest[:2] / digest


@given(JSON)
@settings(max_examples=150, deadline=None)
def test_canonical_is_a_fixed_point_and_keeps_the_value(value):
    content = canonical(value)
    assert canonical(parse_json(content)) == content
    assert parse_json(content) == value


def test_canonical_does_not_depend_on_key_order():
    assert canonical({"b": 1, "a": [1.0, "é"]}) == canonical({"a": [1, "é"], "b": 1}) == '{"a":[1,"é"],"b":1}'.encode()


@pytest.mark.parametrize("value", [2**53 + 2, -(2**60), float("nan"), float("inf"), {1: 2}, b"x", "\ud800", {"a": {1}}])
def test_values_without_a_canonical_form_are_refused(value):
    with pytest.raises(NotCanonical):
        canonical(value)


@pytest.mark.parametrize("content", [b'{"a":1,"a":2}', b"NaN", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_strict_json_only(content):
    with pytest.raises(NotCanonical):
        parse_json(content)


def test_put_names_by_digest_and_twice_is_once(store, tmp_path):
    digest = store.put(b"hello")
    assert digest == digest_of(b"hello") == hashlib.sha256(b"hello").hexdigest()
    before = stored_file(tmp_path, digest).stat()
    assert store.put(b"hello") == digest
    after = stored_file(tmp_path, digest).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert store.exists(digest)
    assert [path.name for path in stored_file(tmp_path, digest).parent.iterdir()] == [digest]


def test_missing_and_corrupt_are_told_apart_and_put_mends(store, tmp_path):
    with pytest.raises(ObjectMissing, match="not in"):
        store.get("0" * 64)
    for odd in ["", "ABC", "../../etc/passwd", "g" * 64, "A" * 64]:
        with pytest.raises(ObjectMissing, match="not a digest"):
            store.get(odd)
    digest = store.put(b"hello world")
    for damaged in [b"", b"hello worlD", b"hello", b"hello world\n"]:
        stored_file(tmp_path, digest).write_bytes(damaged)
        with pytest.raises(ObjectCorrupt, match="hashes to"):
            store.get(digest)
    store.put(b"hello world")
    assert store.get(digest) == b"hello world"


def test_lines_and_json(store):
    rows = [{"instruction": "a\nb", "output": "ü"}, {"output": "x", "instruction": "y"}]
    digest = store.put_lines(rows)
    assert store.get_lines(digest) == rows
    assert store.get(digest).count(b"\n") == 2
    assert store.get_lines(store.put_lines([])) == []
    assert store.get_json(store.put_json({"a": 1})) == {"a": 1}
    with pytest.raises(ObjectCorrupt, match="expected to hold JSON"):
        store.get_json(store.put(b"{"))
    with pytest.raises(ObjectCorrupt, match="no end"):
        store.get_lines(store.put(b"{}"))


def test_folder_round_trip_is_independent_of_where_it_stood(store, tmp_path):
    for name in ["one", "two"]:
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "b.bin").write_bytes(b"\0\1")
        (tmp_path / name / "deep" / "a.txt").write_text("a")
    digest = store.put_folder(tmp_path / "one")
    assert digest == store.put_folder(tmp_path / "two")
    target = store.get_folder(digest, tmp_path / "new" / "place")
    assert (target / "deep" / "a.txt").read_text() == "a"
    assert store.get_folder(digest, target) == target
    assert sorted(path.name for path in target.parent.iterdir()) == ["place"]
    (target / "b.bin").write_bytes(b"other")
    with pytest.raises(FolderRefused, match="other files"):
        store.get_folder(digest, target)


def test_folder_refuses_links_and_hostile_names(store, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to("/etc/passwd")
    with pytest.raises(FolderRefused, match="link"):
        store.put_folder(tmp_path / "in")
    with pytest.raises(FolderRefused):
        store.put_folder(tmp_path / "absent")
    content = store.put(b"x")
    for name in ["../out", "/abs", "a/../../b", "a//b", "", "a\\b", "C:/x", "a/."]:
        digest = store.put_json({"kind": "folder", "files": {name: content}})
        with pytest.raises(FolderRefused, match="leaves"):
            store.get_folder(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ObjectCorrupt):
        store.get_folder(store.put_json({"kind": "pool"}), tmp_path / "out")


def test_a_folder_with_a_missing_file_is_not_half_restored(store, tmp_path):
    digest = store.put_json({"kind": "folder", "files": {"a": store.put(b"x"), "b": "0" * 64}})
    with pytest.raises(ObjectMissing):
        store.get_folder(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["objects"]


def test_scratch_is_mutable_checked_and_separate(store, tmp_path):
    area = store.scratch("run 1")
    assert area.read("step.bin") is None
    area.write("step.bin", b"one")
    area.write("step.bin", b"two")
    assert store.scratch("run 1").read("step.bin") == b"two"
    assert store.scratch("run 2").read("step.bin") is None
    file = next(path for path in (tmp_path / "objects" / "scratch").rglob("*") if path.is_file())
    whole = file.read_bytes()
    for position in range(len(whole)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert area.read("step.bin") is None
    file.write_bytes(whole[:10])
    assert area.read("step.bin") is None
    area.write("step.bin", b"three")
    area.clear()
    area.clear()
    assert area.read("step.bin") is None
    with pytest.raises(FolderRefused):
        area.write("../x", b"")


def test_a_store_that_is_not_a_local_folder():
    store = ObjectStore("memory://objects-test")
    digest = store.put(b"remote")
    assert store.get(digest) == b"remote"
    area = store.scratch("k")
    area.write("a", b"1")
    assert area.read("a") == b"1"
    area.clear()
    assert area.read("a") is None
