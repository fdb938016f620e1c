"""Nothing is written or deleted outside the root, wherever paths, URLs and links lead."""

from pathlib import Path

import pytest

from components.storage.fence import NotErased, OutsideRoot, erase, lies_below, local_path, need_below
from components.storage.objects import ObjectStore
from components.storage.remains import copies_of


@pytest.mark.parametrize(
    ("place", "root", "inside"),
    [
        ("/a/b/c", "/a/b", True),
        ("/a/b", "/a/b", True),
        ("/a/bc", "/a/b", False),
        ("/a/b/../c", "/a/b", False),
        ("file:///a/b/c%20d", "/a/b", True),
        ("file:///a/b/%2e%2e/c", "/a/b", False),
        ("/a/b/c", "file:///a/b", True),
        ("s3://bucket/root/run", "s3://bucket/root", True),
        ("s3://bucket/root/run", "s3://bucket/root/", True),
        ("s3://bucket/rooted/run", "s3://bucket/root", False),
        ("s3://other/root/run", "s3://bucket/root", False),
        ("s3://bucket/root/../run", "s3://bucket/root", False),
        ("gs://bucket/root/run", "s3://bucket/root", False),
        ("/bucket/root/run", "s3://bucket/root", False),
        ("mlflow-artifacts:/1/run/artifacts", "mlflow-artifacts:/1", True),
        ("mlflow-artifacts:/2/run/artifacts", "mlflow-artifacts:/1", False),
        ("file:///a/b", "mlflow-artifacts:/", False),
    ],
)
def test_what_lies_below_a_root(place: str, root: str, inside: bool) -> None:
    assert lies_below(place, root) is inside
    if not inside:
        with pytest.raises(OutsideRoot, match=r"outside .*: nothing is written or deleted there\. Move it"):
            need_below(place, root, "The files are", "Move it")


def test_paths_and_urls_of_this_machine() -> None:
    assert local_path("file:///a%20b/c") == Path("/a b/c")
    assert local_path("/a%20b/c") == Path("/a%20b/c")
    assert [local_path(url) for url in ("s3://bucket/a", "mlflow-artifacts:/1")] == [None, None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root beside another state, with links into that."""
    (tmp_path / "other" / "run").mkdir(parents=True)
    (tmp_path / "other" / "run" / "weights").write_text("another state's")
    (tmp_path / "root" / "own").mkdir(parents=True)
    (tmp_path / "root" / "own" / "weights").write_text("ours")
    (tmp_path / "root" / "own" / "link").symlink_to(tmp_path / "other" / "run" / "weights")
    (tmp_path / "root" / "own" / "linked").symlink_to(tmp_path / "other" / "run")
    (tmp_path / "root" / "elsewhere").symlink_to(tmp_path / "other")
    return tmp_path / "root"


def test_links_go_and_what_they_lead_to_stays(root: Path) -> None:
    other = root.parent / "other" / "run" / "weights"
    for path in ("own/link", "own", "own", "never there"):
        erase(root / path, root)
    assert other.read_text() == "another state's"
    assert not (root / "own").exists()
    for path in (root / "elsewhere" / "run", root / "elsewhere" / "run" / "weights", root / ".." / "other", root):
        with pytest.raises(OutsideRoot):
            erase(path, root)
    assert other.read_text() == "another state's"
    erase(root / "elsewhere", root)
    assert other.read_text() == "another state's"


def test_a_root_that_is_a_link_itself_is_a_root(root: Path) -> None:
    (root.parent / "alias").symlink_to(root)
    assert lies_below(str(root.parent / "alias" / "own"), str(root))
    erase(root.parent / "alias" / "own", root.parent / "alias")
    assert not (root / "own").exists()


def test_what_cannot_be_deleted_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "unlink", lambda _: None)
    with pytest.raises(NotErased, match="weights is still there"):
        erase(root / "own" / "weights", root)


def test_an_object_is_not_deleted_through_a_link(tmp_path: Path) -> None:
    original, copy = (ObjectStore(f"file://{tmp_path}/{name}/objects") for name in ("original", "copy"))
    digest = original.put(b"rows")
    shard = tmp_path / "copy" / "objects" / "sha256" / digest[:2]
    shard.parent.mkdir(parents=True)
    shard.symlink_to(tmp_path / "original" / "objects" / "sha256" / digest[:2])
    with pytest.raises(OutsideRoot):
        copy.erase(digest, "withdrawn")
    assert original.get(digest) == b"rows"


def test_copies_of_what_was_erased_are_found_by_content(tmp_path: Path) -> None:
    store = ObjectStore(f"file://{tmp_path}/objects")
    rows, kept = store.put(b"rows"), store.put(b"kept")
    store.erase(rows, "withdrawn")
    store.erase(kept, "withdrawn")
    store.put(b"kept")  # somebody needs it again
    (tmp_path / "shown").mkdir()
    for name, content in (("a", b"rows"), ("b", b"kept"), ("c", b"row")):
        (tmp_path / "shown" / name).write_bytes(content)
    gone = set(store.tombstones())
    assert gone == {rows}
    assert list(copies_of(gone, [tmp_path / "shown", tmp_path / "not there"])) == [tmp_path / "shown" / "a"]
