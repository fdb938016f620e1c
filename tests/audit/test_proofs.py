"""Proofs hold with the public key alone, and any changed byte of one is found."""

import json

import pytest

from components.audit import keyring, keys, log, proofs
from components.audit.log import Actor, Deed
from components.audit.proofs import ProofRefused
from components.storage.objects import canonical, parse_json

ALICE = Actor("alice", assured=False)


@pytest.fixture
def grow(database):
    def more(number: int) -> None:
        with database.begin() as connection:
            log.append_all(connection, [Deed("thing.done", ALICE, f"s{i}", {"é": i}) for i in range(number)])

    return more


@pytest.fixture
def proven(database, grow, tmp_path):
    """Two keys, two heads and a proof of each kind."""
    grow(3)
    first = keyring.current(database, tmp_path)
    with database.read() as connection:
        early = first.sign(log.head(connection))
    second = keyring.rotate(database, tmp_path, ALICE, "a year")
    grow(6)
    with database.read() as connection:
        inclusion = proofs.prove_inclusion(connection, 2, second)
        consistency = proofs.prove_consistency(connection, early, second)
    return {"first": first, "second": second, "early": early, "inclusion": inclusion, "consistency": consistency}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 9])
def test_every_entry_and_every_beginning_is_proven(database, grow, tmp_path, size):
    key = keys.signing_key(tmp_path)
    key = keyring.current(database, tmp_path)  # the first entry
    early = []
    for _ in range(size):
        with database.read() as connection:
            early.append(key.sign(log.head(connection)))
        grow(1)
    with database.read() as connection:
        for index in range(size + 1):
            found = proofs.check(proofs.prove_inclusion(connection, index, key), key.public)
            assert found.entry is not None
            assert (found.entry["index"], found.head) == (index, log.head(connection))
        for number, content in enumerate(early, start=1):
            found = proofs.check(proofs.prove_consistency(connection, content, key), key.public)
            assert found.first is not None
            assert found.first.entries == number


def test_older_keys_lead_to_the_newest_and_strangers_nowhere(proven, tmp_path):
    for key in (proven["first"], proven["second"]):
        assert proofs.check(proven["inclusion"], key.public).kind == proofs.INCLUSION
    assert proofs.check(proven["consistency"], proven["first"].public).kind == proofs.CONSISTENCY
    with pytest.raises(ProofRefused, match="signed by key"):  # the earlier head is by a key that is not trusted
        proofs.check(proven["consistency"], proven["second"].public)
    thief = keys.signing_key(tmp_path / "thief")
    with pytest.raises(ProofRefused, match="none of the keys"):
        proofs.check(proven["inclusion"], thief.public)


@pytest.mark.parametrize("kind", ["inclusion", "consistency"])
def test_any_changed_byte_is_found(proven, kind):
    content, public = proven[kind], proven["first"].public
    for place in range(len(content)):
        changed = content[:place] + bytes([content[place] ^ (1, 0x20)[place % 2]]) + content[place + 1 :]
        with pytest.raises(ProofRefused):
            proofs.check(changed, public)


@pytest.mark.parametrize("kind", ["inclusion", "consistency"])
def test_any_changed_part_is_found(proven, kind):
    """Whole parts dropped, emptied, repeated or taken from the other proof, canonical as before."""
    value, other = parse_json(proven[kind]), parse_json(proven["consistency" if kind == "inclusion" else "inclusion"])
    changed = [{name: part for name, part in value.items() if name != gone} for gone in value]
    changed += [{**value, name: wrong} for name in value for wrong in (None, "", 2, [], {}, other.get(name, 0))]
    changed += [{**value, "path": path} for path in (value["path"][:-1], value["path"] * 2, value["path"][::-1])]
    changed += [{**value, "keys": value["keys"][:1]}, {**value, "keys": value["keys"][1:]}, {**value, "more": 1}]
    for one in changed:
        if one != value:
            with pytest.raises(ProofRefused):
                proofs.check(canonical(one) + b"\n", proven["first"].public)


def test_another_logs_head_is_not_proven(database, proven, tmp_path):
    value = json.loads(proven["early"])
    forged = proven["first"].sign(keys.Head(3, "a" * 64, "b" * 64, "2026-01-31T12:00:00.000000Z"))
    longer = proven["first"].sign(keys.Head(99, "a" * 64, "b" * 64, value["head"]["at"]))
    with database.read() as connection:
        with pytest.raises(ProofRefused, match="rewritten between"):
            proofs.prove_consistency(connection, forged, proven["second"])
        with pytest.raises(ProofRefused, match="it was cut"):
            proofs.prove_consistency(connection, longer, proven["second"])
        with pytest.raises(ProofRefused, match="has no entry 77"):
            proofs.prove_inclusion(connection, 77, proven["second"])
