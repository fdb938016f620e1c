"""Copies of versions: complete, checked at each reading, fetched again where they are damaged."""

import shutil

import pytest
from small_gateway import files_of

from components.errors import LciaError
from components.model.adapters import read_weights
from components.serving import bundle
from components.serving.bundle import BundleRefused
from components.serving.copies import Copies
from components.storage.objects import digest_of
from lcia.operations.serving import part


@pytest.fixture
def state(learnt):
    """The learnt state, to be looked at."""
    return learnt.loop.open()


@pytest.fixture
def fetched():
    """Digests of the parts that were fetched."""
    return []


@pytest.fixture
def copies(state, tmp_path, fetched):
    """Copies of the state's versions."""

    def fetch(version, digest):
        fetched.append(digest)
        return part(state, version, digest)

    return Copies(tmp_path / "copies of a path % odd", fetch)


def test_a_copy_is_the_version_and_is_fetched_once(copies, state, learnt, fetched):
    version = learnt.digests[-1]
    copy, own = copies.bundle(version), bundle.from_store(state.store, version)
    assert (copy.pool, copy.settings, copy.tasks) == (own.pool, own.settings, own.tasks)
    for group in own.pool.groups:
        folder = copies.adapter(group.adapter)
        weights = read_weights((folder / "adapter_model.safetensors").read_bytes())
        assert all((weights[name] == tensor).all() for name, tensor in own.adapters[group.id].items())
    assert len(fetched) == len(set(fetched)) > 6
    assert [path.name for path in copies._folder.parent.iterdir()] == [copies._folder.name], (
        "odd names stay as they are"
    )
    count = len(fetched)
    copies.bundle(version)
    assert len(fetched) == count


def test_rows_are_no_part_of_a_copy(copies, state, learnt):
    copies.bundle(learnt.digests[-1])
    rows = {
        value
        for entry in state.pool(learnt.digests[-1]).tasks()
        for value in splits_of(state.store.get_json(entry.task))
    }
    assert rows
    assert not rows & {path.name for path in files_of(copies._folder)}


def splits_of(task):
    """Digests of the rows of a task's object."""
    found = []

    def walk(value):
        if isinstance(value, dict):
            for each in value.values():
                walk(each)
        elif isinstance(value, str) and len(value) == 64:
            found.append(value)

    walk(task["splits"])
    return found


def test_damaged_and_lost_files_are_fetched_again(copies, learnt, fetched):
    version = learnt.digests[-1]
    copies.bundle(version)
    fetched.clear()
    first, second, *_ = files_of(copies._folder / "objects")
    first.write_bytes(b"other bytes")
    second.unlink()
    copies.bundle(version)
    assert sorted(fetched) == sorted([first.name, second.name])


def test_a_folder_that_an_engine_reads_is_written_anew_if_it_was_altered(copies, state, learnt):
    version = learnt.digests[-1]
    group = copies.bundle(version).pool.groups[0]
    weights = copies.adapter(group.adapter) / "adapter_model.safetensors"
    right = weights.read_bytes()
    weights.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert (copies.adapter(group.adapter) / weights.name).read_bytes() == right


def test_other_bytes_than_asked_for_are_refused_and_not_kept(state, learnt, tmp_path):
    version = learnt.digests[-1]
    copies = Copies(tmp_path / "copies", lambda version, digest: part(state, version, digest) + b" ")
    with pytest.raises(BundleRefused, match="altered on its way"):
        copies.bundle(version)
    assert files_of(tmp_path / "copies") == []


def test_without_the_other_side_only_a_complete_copy_opens(copies, learnt):
    version = learnt.digests[-1]
    copies.bundle(version)

    def gone(_version, _digest):
        raise LciaError("not reached")

    copies._fetch = gone
    copies.bundle(version)
    files_of(copies._folder / "objects")[0].unlink()
    with pytest.raises(LciaError, match="not reached"):
        copies.bundle(version)


def test_what_was_decided_is_kept_and_nonsense_is_nothing(copies):
    assert copies.last() is None
    copies.keep({"champion": {"number": 3}})
    assert copies.last() == {"champion": {"number": 3}}
    path = copies._folder / "decided.json"
    assert path.stat().st_mode & 0o077 == 0, "it names tokens' hashes"
    for content in (b"", b"[]", b'{"a": NaN}', b"\xff"):
        path.write_bytes(content)
        assert copies.last() is None


def test_all_but_the_versions_in_use_are_deleted(copies, learnt):
    for version in learnt.digests:
        copies.bundle(version)
    last = copies.bundle(learnt.digests[-1])
    for group in last.pool.groups:
        copies.adapter(group.adapter)
    before = {path.name for path in files_of(copies._folder / "objects")}
    copies.forget_all_but([learnt.digests[-1]])
    after = {path.name for path in files_of(copies._folder / "objects")}
    assert after < before
    copies._fetch = lambda *_: pytest.fail("nothing of it is missing")
    copies.bundle(learnt.digests[-1])
    shutil.rmtree(copies._folder / "adapters")
    assert digest_of((copies.adapter(last.pool.groups[0].adapter) / "adapter_config.json").read_bytes()) in after
