"""Keys: made once, handed over under both signatures, followed from any trusted one to the newest."""

import os
from pathlib import Path

import pytest

from components.audit import keyring, keys, log
from components.audit.keys import HeadRefused, KeyUnusable, RotationRefused, TrustedKeys, read_head
from components.audit.log import Actor
from components.audit.verify import verify_export
from components.quality.fingerprints import leak_key
from components.storage.database import Database

ALICE = Actor("alice", assured=False)


def grow(db: Database, number: int = 2) -> None:
    for count in range(number):
        with db.begin() as connection:
            log.append(connection, "thing.done", ALICE, f"s{count}")


def export(db: Database, path: Path, key: keys.SigningKey) -> Path:
    with db.read() as connection:
        log.export(connection, path, key)
    return path


def test_the_first_key_is_entered_once(database, tmp_path):
    key = keyring.current(database, tmp_path)
    assert keyring.current(database, tmp_path).id == key.id
    with database.read() as connection:
        assert [entry.action for entry in log.entries(connection)] == ["key.started"]
        assert [known["id"] for known in keyring.keys(connection)] == [key.id]


def test_rotation_keeps_old_exports_and_heads_good(database, tmp_path):
    folder = tmp_path / "keys"
    grow(database)
    first = keyring.current(database, folder)
    export(database, tmp_path / "old.jsonl", first)
    kept = (tmp_path / "old.jsonl.head").rename(tmp_path / "kept.head")
    second = keyring.rotate(database, folder, ALICE, "a year has passed")
    grow(database)
    third = keyring.rotate(database, folder, ALICE, "again")
    assert len({first.id, second.id, third.id}) == 3
    path = export(database, tmp_path / "log.jsonl", keyring.current(database, folder))
    for trusted in (first, second, third):
        assert verify_export(path, trusted.public).ok
    assert verify_export(path, first.public, kept).freshness.startswith("contains everything up to entry 3")
    assert not verify_export(path, second.public, kept).ok  # an older key is not trusted because of a newer one
    assert not (folder / "next" / keys.PRIVATE_NAME).exists()
    pems = {keys.key_id(keys.read_public_key(file)) for file in folder.glob("*.pub.pem")}
    assert pems == {first.id, second.id, third.id}
    assert len([*folder.rglob("*.pem")]) == 4  # one private key


def test_a_key_that_handed_over_signs_nothing_later(database, tmp_path):
    grow(database)
    first = keyring.current(database, tmp_path)
    keyring.rotate(database, tmp_path, ALICE, "stolen")
    grow(database)
    path = export(database, tmp_path / "log.jsonl", first)
    found = verify_export(path, first.public)
    assert not found.ok
    assert "handed over before" in found.message


def test_forged_rotations_are_refused(database, tmp_path):
    first = keyring.current(database, tmp_path / "keys")
    second = keyring.rotate(database, tmp_path / "keys", ALICE, "x")
    with database.read() as connection:
        records = keyring.records(connection)
    chain = TrustedKeys.chain(records, first.id)
    assert chain.until == {first.id: 1, second.id: None}
    assert [*TrustedKeys.chain(records, second.id).keys] == [second.id]
    assert [*TrustedKeys.chain(records, None).keys] == [first.id, second.id]
    thief = keys.signing_key(tmp_path / "thief")
    with pytest.raises(RotationRefused, match="none of the keys"):
        TrustedKeys.chain(records, thief.id)
    head = keys.Head(1, "h", "r", "t")
    mine = thief.hand_over(thief, head)
    for changed in (
        {**records[1], "public": keys.raw(thief.public)},
        {**records[1], "entries": 5},
        {**records[1], "root": "0" * 64},
        {**records[1], "by_old": records[1]["by_new"]},
        {**records[1], "by_new": mine["by_new"]},
        {**mine, "from": first.id},
        {**records[1], "more": 1},
    ):
        with pytest.raises(RotationRefused):
            TrustedKeys.chain([records[0], changed], first.id)
    with pytest.raises(RotationRefused, match="second time"):
        TrustedKeys.chain([*records, records[1]], first.id)
    with pytest.raises(HeadRefused):
        read_head(thief.sign(head), chain)


def test_a_rotation_forged_inside_an_export_is_found(database, tmp_path):
    grow(database)
    first = keyring.current(database, tmp_path / "keys")
    thief = keys.signing_key(tmp_path / "thief")
    with database.begin() as connection:
        record = {**thief.hand_over(thief, log.head(connection)), "from": first.id}
        log.append(connection, "key.rotated", ALICE, thief.id, {"record": record})
    path = export(database, tmp_path / "log.jsonl", thief)
    found = verify_export(path, first.public)
    assert (found.ok, found.first_bad) == (False, 3)
    assert "not signed by both" in found.message


def test_a_crash_between_log_and_folder_is_mended(database, tmp_path, monkeypatch):
    first = keyring.current(database, tmp_path)
    monkeypatch.setattr(keyring, "_take_over", lambda *_: None)
    second = keyring.rotate(database, tmp_path, ALICE, "x")
    assert keys.signing_key(tmp_path).id == first.id
    monkeypatch.undo()
    assert keyring.current(database, tmp_path).id == second.id
    with database.begin() as connection:  # one that never reached the log is forgotten
        log.append(connection, "thing.done", ALICE, "s")
    keys.signing_key(tmp_path / "next")
    assert keyring.current(database, tmp_path).id == second.id
    third = keyring.rotate(database, tmp_path, ALICE, "y")
    assert keyring.current(database, tmp_path).id == third.id


def test_another_machine_s_key_signs_nothing(database, tmp_path):
    keyring.current(database, tmp_path / "here")
    with pytest.raises(KeyUnusable, match="has no"):
        keyring.current(database, tmp_path / "there")
    keys.signing_key(tmp_path / "there")
    with pytest.raises(KeyUnusable, match="copy that one here"):
        keyring.current(database, tmp_path / "there")


@pytest.mark.parametrize("make", [keys.signing_key, leak_key])
def test_nobody_else_may_put_a_key_beside_ours_whatever_the_umask(tmp_path, make):
    before = os.umask(0o002)
    try:
        make(tmp_path / "keys")
    finally:
        os.umask(before)
    assert (tmp_path / "keys").stat().st_mode & 0o022 == 0
