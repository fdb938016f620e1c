from dataclasses import replace

import pytest

from components.quality.fingerprints import (
    KEY_NAME,
    LeakKeyUnusable,
    key_name,
    leak_key,
    load_fingerprints,
    store_fingerprints,
)
from components.quality.leaks import occurrences, seen_before
from components.quality.validation import Background, validate
from components.settings import ValidationSettings
from components.tasks.rows import Example

SETTINGS = ValidationSettings(min_rows=5)
KEY = bytes(range(32))


def rows(prefix: str, count: int) -> list[Example]:
    return [Example("Name it.", f"{prefix} {i}", ("red", "blue")[i % 2]) for i in range(count)]


def erased(task, *splits):
    gone = {split: replace(task.splits[split], object="0" * 64) for split in splits}
    return replace(task, splits={**task.splits, **gone}, _read={})


def test_the_key_is_made_once_and_readable_by_its_owner_only(tmp_path):
    key = leak_key(tmp_path / "keys")
    assert len(key) == 32
    assert leak_key(tmp_path / "keys") == key
    path = tmp_path / "keys" / KEY_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == [KEY_NAME]
    assert key.hex() not in key_name(key)
    path.chmod(0o644)
    with pytest.raises(LeakKeyUnusable, match="chmod 600"):
        leak_key(tmp_path / "keys")
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(LeakKeyUnusable, match="5 bytes"):
        leak_key(tmp_path / "keys")


def test_hashes_say_nothing_without_the_key(snapshot_of, store):
    task = snapshot_of(rows("train", 5), rows("validation", 5), rows("test", 5))
    digest = store_fingerprints(task, KEY, store)
    assert store_fingerprints(task, KEY, store) == digest
    content = store.get(digest)
    assert KEY.hex().encode() not in content
    assert b"train 0" not in content
    mine, other = load_fingerprints(store, digest), load_fingerprints(store, store_fingerprints(task, KEY[::-1], store))
    assert len(set(mine.questions["train"])) == 5
    assert not set(mine.questions["train"]) & set(other.questions["train"])


@pytest.mark.parametrize("same_type", [False, True])
def test_leaks_from_erased_rows_are_found_as_if_they_were_there(snapshot_of, store, same_type):
    earlier = snapshot_of(rows("old train", 200), rows("old validation", 5), rows("old test", 200), name="earlier")
    train = [*rows("train", 199), earlier.rows("test")[3]]
    other_words = replace(earlier.rows("train")[7], instruction="Say its name.", input="OLD  train 7")
    test = [*rows("test", 198), earlier.rows("train")[5], other_words]
    task = snapshot_of(train, rows("validation", 20), test)
    hashes = {one.digest: store_fingerprints(one, KEY, store) for one in (earlier, task)}
    known = Background(
        same_type=frozenset({earlier.digest} if same_type else ()),
        own_hashes=hashes[task.digest],
        kept_hashes={earlier.digest: hashes[earlier.digest]},
    )
    lenient = SETTINGS.model_copy(update={"max_leak": 0.02})
    there = validate(task, [earlier], lenient, known)
    gone = validate(task, [erased(earlier, "train", "validation", "test")], lenient, known)
    assert gone.quarantined_rows == there.quarantined_rows
    expected = [("train", 200), ("test", 199), *([("test", 200)] if same_type else [])]
    assert [(row.split, row.row) for row in gone.quarantined_rows] == expected
    assert "leaks_not_checkable" not in gone.statistics
    assert gone.statistics["leaks_checked_by_hash"] == [f"earlier@1 {s}" for s in ("train", "validation", "test")]
    blind = validate(task, [erased(earlier, "train", "test")], lenient)
    assert not blind.quarantined_rows
    assert blind.statistics["leaks_not_checkable"] == ["earlier@1 train", "earlier@1 test"]


@pytest.mark.parametrize("older", [False, True])
def test_a_question_with_options_is_known_by_them_and_by_records_of_older_releases(snapshot_of, store, older):
    offered, others = ("red", "blue"), ("red", "green")
    task = snapshot_of([Example("Which?", None, "red", offered)], rows("validation", 5), rows("test", 5))
    digest = store_fingerprints(task, KEY, store)
    if older:  # it hashed questions without their options
        record = store.get_json(digest)
        for split in record["splits"].values():
            split["questions"] = split.pop("asked", split["questions"])
        digest = store.put_json(record)
    places = seen_before([erased(task, "train")], (), {task.digest: load_fingerprints(store, digest)}).training
    new = [Example("Which?", None, "red", offered), Example("Which?", None, "red", others)]
    mine = snapshot_of(rows("train", 5), rows("validation", 5), new)
    found = occurrences(new, places, load_fingerprints(store, store_fingerprints(mine, KEY, store)), "test")
    assert [bool(place) for place in found] == [True, older]


def japanese(prefix: str, count: int) -> list[Example]:
    return [Example("読む。", f"{prefix}の店は{i}時に開く", "はい") for i in range(count)]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("said", ["東京の店は 7時に開く", "東京の店は　７時に開く"])
def test_width_and_spaces_hide_no_leak_in_scripts_without_spaces(snapshot_of, store, kept, said):
    earlier = snapshot_of(japanese("東京", 20), japanese("大阪", 5), japanese("京都", 5), name="earlier")
    leaked = Example("答える。", said, "はい")
    task = snapshot_of(japanese("横浜", 20), japanese("札幌", 5), [*japanese("福岡", 19), leaked])
    hashes = {one.digest: store_fingerprints(one, KEY, store) for one in (earlier, task)}
    known = Background(frozenset({earlier.digest}), hashes[task.digest], {earlier.digest: hashes[earlier.digest]})
    before = earlier if kept else erased(earlier, "train", "validation", "test")
    result = validate(task, [before], SETTINGS.model_copy(update={"max_leak": 0.1}), known)
    assert [(row.split, row.row) for row in result.quarantined_rows] == [("test", 20)]


def test_hashes_of_an_earlier_release_are_still_compared(snapshot_of, store):
    """It evened out white space alone, whatever the script."""
    spaced = [Example("読む。", f"東京 の店は {i}", "はい") for i in range(20)]
    earlier = snapshot_of(spaced, japanese("大阪", 5), japanese("京都", 5), name="earlier")
    written = store.get_json(store_fingerprints(earlier, KEY, store))
    splits = {s: {"questions": one["questions"], "answers": one.get("spaced", one["answers"])}
              for s, one in written["splits"].items()}  # fmt: skip
    assert splits["train"]["answers"] != written["splits"]["train"]["answers"]
    old = store.put_json({**written, "splits": splits})
    leaked = Example("答える。", "東京  の店は 7", "はい")
    task = snapshot_of(japanese("横浜", 20), japanese("札幌", 5), [*japanese("福岡", 19), leaked])
    known = Background(frozenset({earlier.digest}), store_fingerprints(task, KEY, store), {earlier.digest: old})
    gone = erased(earlier, "train", "validation", "test")
    result = validate(task, [gone], SETTINGS.model_copy(update={"max_leak": 0.1}), known)
    assert [(row.split, row.row) for row in result.quarantined_rows] == [("test", 20)]


def test_hashes_of_spaced_text_are_those_of_the_release_before(snapshot_of, store):
    task = snapshot_of(rows("train", 5), rows("validation", 5), rows("test", 5))
    assert store_fingerprints(task, KEY, store) == "49118fcd5f655ed51b3a6ac3f6335049ff83d295646bf1a9bcd97bb2660c3161"
