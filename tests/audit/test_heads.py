"""Signed heads reach every place outside the database, in the end, and keep what was altered from passing."""

import fsspec
import pytest
from small_loop import OPS, promote
from sqlalchemy import delete, select, update
from tampering import tamper

from components.audit import heads, keyring, log
from components.audit.keys import Head, read_head
from components.audit.log import Actor, Deed
from components.notices import notices
from components.settings import AuditSettings, NotifySettings
from components.storage import tables
from lcia.operations import audit as auditing
from lcia.operations import decisions, registry

ALICE = Actor("alice", assured=False)


@pytest.fixture
def key(database, tmp_path):
    return keyring.current(database, tmp_path / "keys")


def grow(database, number=3):
    with database.begin() as connection:
        log.append_all(connection, [Deed("thing.done", ALICE, f"s{i}", {}) for i in range(number)])


def test_each_head_is_kept_once_in_each_place(database, key, tmp_path):
    places = [str(tmp_path / "one"), f"memory://{tmp_path.name}"]
    for _ in range(2):
        grow(database)
        for _ in range(2):
            content = heads.enqueue(database, key, places)
            heads.deliver(database, places)
    assert heads.deliver(database, places) == []
    files = sorted((tmp_path / "one").iterdir())
    assert [read_head(file.read_bytes(), key.public).entries for file in files] == [4, 7]
    assert files[1].read_bytes() == content
    assert files[0].stat().st_mode & 0o222 == 0
    memory = fsspec.filesystem("memory")
    assert [memory.cat_file(path) for path in sorted(memory.ls(tmp_path.name, detail=False))][1] == content
    with database.read() as connection:
        assert heads.missing(connection, [*places, "third"], 7) == ["third"]
        assert heads.missing(connection, places, 8) == places


def test_a_place_that_is_down_loses_nothing(database, key, tmp_path):
    down = tmp_path / "down"
    down.write_text("a file where a folder should be")
    places = [str(down), str(tmp_path / "up")]
    for _ in range(2):
        grow(database)
        heads.enqueue(database, key, places)
        told = heads.deliver(database, places)
        assert [(one.place, one.ok) for one in told][-1] == (str(tmp_path / "up"), True)
    with database.read() as connection:
        assert [(instance, entries) for instance, entries, _ in heads.waiting(connection, places)] == [
            (str(down), 4),
            (str(down), 7),
        ]
    down.unlink()
    assert [one.ok for one in heads.deliver(database, places)] == [True, True]
    assert len([*down.iterdir()]) == 2


def test_what_lies_there_already_is_not_replaced(database, key, tmp_path):
    grow(database)
    heads.enqueue(database, key, [str(tmp_path / "one")])
    heads.deliver(database, [str(tmp_path / "one")])
    file = next((tmp_path / "one").iterdir())
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b'"entries":4', b'"entries":3'))
    tamper(database, update(tables.heads).values(done_at=None))
    told = heads.deliver(database, [str(tmp_path / "one")])
    assert not told[0].ok
    assert "somebody altered it" in told[0].message
    assert b'"entries":3' in file.read_bytes()


def test_heads_that_wait_go_to_no_place_that_the_settings_name_no_more(database, key, tmp_path):
    grow(database)
    heads.enqueue(database, key, [str(tmp_path / "original")])
    assert heads.deliver(database, [str(tmp_path / "copy")]) == []
    assert not (tmp_path / "original").exists()


def test_a_bucket_without_its_library_is_refused_clearly(database, key):
    grow(database)
    heads.enqueue(database, key, ["s3://bucket/heads"])
    told = heads.deliver(database, ["s3://bucket/heads"])
    assert not told[0].ok
    assert "heads can't be kept at s3://bucket/heads" in told[0].message
    assert "s3fs" in told[0].message


def opened(loop, *places, hooks=()):
    instance = loop.open()
    audit = AuditSettings(heads_to=places, public_key=instance.settings.audit.public_key)
    settings = instance.settings.model_copy(update={"audit": audit, "notify": NotifySettings(webhooks=hooks)})
    return instance.__class__(instance.home, settings, instance.db, instance.store, instance.registry)


def test_every_promotion_and_rollback_sends_one_and_nothing_waits_for_it(pending, tmp_path):
    down, up = tmp_path / "down", tmp_path / "up"
    down.write_text("a file where a folder should be")
    instance = opened(pending, str(down), str(up), "mlflow")
    digest = promote(instance)
    assert instance.champion().digest == digest == instance.registry.champion()
    kept = [read_head(file.read_bytes(), instance.public_key()) for file in up.iterdir()]
    proof = auditing.prove(instance, "1")
    assert [head.entries > proof["entry"]["index"] for head in kept] == [True]
    told = registry.sync(instance, OPS)
    assert any("heads can't be kept at" in message for message in told["failed"])
    down.unlink()
    assert registry.sync(instance, OPS)["ok"]
    assert next(down.iterdir()).read_bytes() == next(up.iterdir()).read_bytes()
    with instance.db.read() as connection:
        assert heads.waiting(connection, instance.settings.audit.heads_to) == []
        content = connection.execute(
            select(tables.heads.c.content).where(tables.heads.c.place == "mlflow")
        ).scalar_one()
    name = heads.name_of(read_head(content.encode(), None))
    instance.registry.keep_head(name, content.encode())  # what is there already is found
    with pytest.raises(heads.HeadNotKept, match="MLflow holds another head"):
        instance.registry.keep_head(name, instance.signing_key().sign(Head(1, "a" * 64, "b" * 64, "")))


def test_a_head_that_a_crash_left_unsent_is_sent_later(champion, tmp_path):
    instance = opened(champion, str(tmp_path / "heads"))
    assert registry.sync(instance, OPS)["ok"]
    with instance.db.read() as connection:
        length = log.head(connection).entries
    assert [read_head(file.read_bytes(), None).entries for file in (tmp_path / "heads").iterdir()] == [length]
    assert registry.sync(instance, OPS)["ok"]
    assert len([*(tmp_path / "heads").iterdir()]) == 1
    decisions.rollback(instance, "1", OPS, "answers became longer")
    assert len([*(tmp_path / "heads").iterdir()]) == 2


def test_a_cut_of_the_live_log_is_found_by_the_kept_head_and_people_are_told(champion, tmp_path, monkeypatch):
    monkeypatch.setenv("LCIA_WEBHOOK_SECRET", "whsec_" + "QUFB" * 8)
    instance = opened(champion, str(tmp_path / "heads"), hooks=("https://example.org/hook",))
    auditing.keep_head(instance)
    assert auditing.verify(instance).ok
    assert "head kept elsewhere" in auditing.verify(instance).freshness
    with instance.db.read() as connection:
        last = log.head(connection).entries - 1
    tamper(instance.db, delete(tables.log).where(tables.log.c.position == last))
    for _ in range(2):
        found = auditing.verify(instance)
        assert not found.ok
        assert "the end was cut off" in found.message
    with instance.db.read() as connection:
        told = notices.waiting(connection, instance.assistant)
    assert [(one.kind, one.payload["text"]) for one in told] == [("tampering", found.message)]


def test_what_was_changed_in_mlflow_is_told_as_tampering(champion, tmp_path):
    instance = opened(champion, str(tmp_path / "heads"))
    with instance.db.begin() as connection:
        notices.collect(connection, instance.assistant, ["hook"])
    with instance.registry._talk() as client:
        client.set_registered_model_alias(instance.assistant, "champion", "1")
    assert registry.sync(instance, OPS)["differences"]
    with instance.db.begin() as connection:
        notices.collect(connection, instance.assistant, ["hook"])
        assert [one.kind for one in notices.waiting(connection, instance.assistant)] == ["tampering"]
