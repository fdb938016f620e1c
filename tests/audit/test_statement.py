"""Statements: one per promotion, every byte checked, and no champion is loaded without one that holds."""

import base64
import json
from pathlib import Path

import pytest
from small_loop import OPS, SmallLoop
from sqlalchemy import delete, select
from tampering import tamper

from components.audit import keys, log, statement
from components.audit.statement import StatementRefused
from components.promotion import statements
from components.serving import bundle
from components.storage import tables
from components.storage.objects import canonical, parse_json
from lcia.inference import ask
from lcia.instance import Instance
from lcia.operations import audit, decisions, registry

VERSION = "5" * 64


@pytest.fixture
def instance(champion: SmallLoop) -> Instance:
    return champion.open()


@pytest.fixture
def made(tmp_path) -> tuple[keys.SigningKey, bytes]:
    key = keys.signing_key(tmp_path / "keys")
    predicate = {"log": {"entry": 3}, "kind": "promotion", "reason": "é"}
    told = statement.payload("assistant", 1, VERSION, predicate)
    return key, statement.sign(key, told, [{"public": keys.raw(key.public)}])


def test_any_changed_byte_of_a_statement_is_found(made):
    key, content = made
    assert statement.read(content, key.public, VERSION).predicate["reason"] == "é"
    for instance in range(len(content)):
        changed = content[:instance] + bytes([content[instance] ^ (1, 0x20)[instance % 2]]) + content[instance + 1 :]
        with pytest.raises(StatementRefused):
            statement.read(changed, key.public, VERSION)


def test_it_is_a_dsse_envelope_as_its_specification_writes_it(made):
    """The oracle is the specification's pre-authentication encoding, written out once more."""
    key, content = made
    envelope = json.loads(content)["envelope"]
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"]
    assert kind == "application/vnd.in-toto+json"
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    key.public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), message)
    told = json.loads(payload)
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["subject"] == [{"name": "assistant/1", "digest": {"sha256": VERSION}}]


def test_other_versions_keys_and_envelopes_are_refused(made, tmp_path):
    key, content = made
    thief = keys.signing_key(tmp_path / "thief")
    with pytest.raises(StatementRefused, match="is about version 5555"):
        statement.read(content, key.public, "6" * 64)
    with pytest.raises(StatementRefused, match="none of the keys"):
        statement.read(content, thief.public, VERSION)
    value = parse_json(content)
    theirs = statement.sign(thief, statement.payload("assistant", 1, VERSION, {"log": {"entry": 3}}), value["keys"])
    with pytest.raises(StatementRefused, match="was signed by key"):
        statement.read(theirs, key.public, VERSION)
    for wrong in ({}, {**value["envelope"], "signatures": []}, {**value["envelope"], "payloadType": "text/plain"}, 3):
        with pytest.raises(StatementRefused):
            statement.read(canonical({**value, "envelope": wrong}) + b"\n", key.public, VERSION)


def test_every_promotion_has_one_that_says_what_the_log_says(instance, learnt):
    for number, digest in enumerate(learnt.digests, start=1):
        found = audit.signed_statement(instance, str(number))
        told = found["predicate"]
        with instance.db.read() as connection:
            entry = log.entries(connection, start=told["log"]["entry"], limit=1)[0]
        assert (found["digest"], told["epoch"], told["kind"]) == (digest, number, "promotion")
        assert (entry.hash, entry.root) == (told["log"]["hash"], told["log"]["root"])
        assert (entry.action, entry.subject) == ("champion.promoted", digest)
        assert [one["person"] for one in told["approvals"]] == ["ops"]
        assert told["evidence"] == instance.version(number).evidence
        assert instance.store.get_json(told["policy"])["policy"] == instance.settings.policy.model_dump(mode="json")
    assert statements.sign_owed(instance.db, instance.store, instance.signing_key(), instance.assistant) == []


def test_the_champion_is_loaded_with_its_statement_only(instance, tmp_path):
    champion = instance.champion()
    instance.need_statement(champion)
    ask.export(instance, None, tmp_path / "out")
    public = instance.settings.audit.public_key
    assert bundle.need_statement(tmp_path / "out", champion.digest, public).version == champion.digest

    with instance.db.read() as connection:
        digest = statements.newest(connection, instance.assistant, champion.digest)
    stored = next(instance.home.glob(f"objects/**/{digest}"))
    good = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(good.replace(b"promotion", b"promotiom", 1) if b"promotion" in good else good[:-2] + b"]\n")
    with pytest.raises(StatementRefused, match="can't be read"):
        ask.ask(instance, "Is it good?", None, None, base=False)
    with pytest.raises(StatementRefused, match="can't be read"):
        ask.export(instance, None, tmp_path / "again")
    stored.write_bytes(good)

    tamper(instance.db, delete(tables.statements))
    with pytest.raises(StatementRefused, match="has no signed statement of its promotion: `lcia sync` signs it"):
        instance.need_statement(champion)
    assert registry.sync(instance, OPS)["ok"]
    instance.need_statement(champion)


def test_another_public_key_refuses(instance, tmp_path):
    thief = keys.signing_key(tmp_path / "thief")
    keys.write_key_file(Path(instance.settings.audit.public_key), keys.public_pem(thief.public), 0o644, overwrite=True)
    with pytest.raises(StatementRefused, match="none of the keys"):
        instance.need_statement(instance.champion())
    Path(instance.settings.audit.public_key).unlink()
    with pytest.raises(keys.KeyUnusable, match="not a readable public key"):
        instance.need_statement(instance.champion())


def test_a_rollback_is_signed_too_and_a_candidate_is_not(instance):
    decisions.rollback(instance, "1", OPS, "answers became longer")
    told = audit.signed_statement(instance, None)["predicate"]
    assert (told["number"], told["kind"], told["epoch"], told["reason"]) == (1, "rollback", 4, "answers became longer")
    assert audit.signed_statement(instance, "3")["predicate"]["epoch"] == 3


def test_a_version_that_was_never_champion_has_none(pending, tmp_path):
    instance = pending.open()
    with pytest.raises(StatementRefused, match="it was never champion"):
        audit.signed_statement(instance, "1")
    ask.export(instance, "1", tmp_path / "out")
    with pytest.raises(StatementRefused, match="has no signed statement of a promotion"):
        bundle.need_statement(tmp_path / "out", instance.version("1").digest, None)


def test_a_new_key_signs_the_champion_again_and_mlflow_gets_it(instance):
    old = keys.read_public_key(Path(instance.settings.audit.public_key))
    made = audit.rotate_key(instance, OPS, "a year has passed")
    assert made["not_told"] == []
    found = audit.signed_statement(instance, None)
    assert found["key"] == made["id"]
    statement.read(found["statement"].encode(), old)  # who has the old key follows to the new one
    assert audit.signed_statement(instance, "3")["key"] == made["id"]
    assert len(audit.keys(instance)["keys"]) == 2
    with instance.db.read() as connection:
        kept = connection.execute(select(tables.heads.c.done_at)).scalars().all()
    assert all(kept)
    assert registry.sync(instance, OPS)["differences"] == []
    assert audit.verify(instance).ok


def test_without_the_key_the_decision_stands_and_mlflow_keeps_the_old_champion(pending):
    instance = pending.open()
    audit.init_keys(instance, OPS)
    private = instance.home / "keys" / keys.PRIVATE_NAME
    hidden = private.rename(instance.home / "away.pem")
    answer = decisions.approve(instance, "1", OPS, "read the evidence")
    assert answer["epoch"] == 1
    version = instance.version("1")
    assert version is not None
    assert instance.registry.champion() is None
    told = registry.sync(instance, OPS)
    assert not told["ok"]
    assert any("is not signed yet" in message for message in told["failed"])
    assert any("restore it from a backup" in message for message in told["failed"])
    with pytest.raises(StatementRefused, match="`lcia sync` signs it"):
        instance.need_statement(version)
    hidden.rename(private)
    assert registry.sync(instance, OPS)["ok"]
    assert instance.registry.champion() == version.digest
    instance.need_statement(version)
