"""The log: every byte counts, in the export and in the database."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, text, update
from tampering import tamper

from components.audit import keys, log
from components.audit.chain import _plain_body
from components.audit.log import Actor, LogDamaged
from components.audit.verify import ExportUnreadable, verify_database, verify_export
from components.storage import tables
from components.storage.database import Database
from components.storage.objects import NotCanonical, canonical, parse_json

ALICE = Actor("alice", assured=False)


@pytest.fixture
def db(database: Database) -> Database:
    return database


def fill(db: Database, number: int) -> None:
    for count in range(number):
        with db.begin() as connection:
            log.append(connection, "thing.done", ALICE, f"s{count}", {"é": ["<b>", count, 0.5], "no": None})


def exported(db: Database, path: Path, key: keys.SigningKey | None = None) -> Path:
    with db.read() as connection:
        log.export(connection, path, key)
    return path


def test_entries_are_chained_and_export_verifies(db, tmp_path):
    fill(db, 5)
    path = exported(db, tmp_path / "out" / "log.jsonl")
    found = verify_export(path)
    assert (found.ok, found.entries, found.first_bad) == (True, 5, None)
    assert found.freshness == "consistent up to entry 5, freshness not proven"
    with db.read() as connection:
        all_entries = log.entries(connection)
        assert verify_database(connection).ok
        assert log.head(connection).root == found.head == all_entries[-1].root
        assert [entry.subject for entry in log.entries(connection, start=3)] == ["s3", "s4"]
        assert len(log.entries(connection, limit=2)) == 2
        assert log.entries(connection, subject="s2")[0].details["no"] is None
        assert log.count(connection) == 5
    assert all_entries[0].previous == ""
    assert [entry.previous for entry in all_entries[1:]] == [entry.hash for entry in all_entries[:-1]]
    line = json.loads(path.read_bytes().splitlines()[2])
    assert set(line) == {"body", "hash", "root"}
    assert line["body"]["actor"] == {"name": "alice", "assured": False, "how": "asserted"}


def test_an_empty_log_is_consistent(db, tmp_path):
    found = verify_export(exported(db, tmp_path / "log.jsonl"))
    assert (found.ok, found.entries) == (True, 0)
    with db.read() as connection:
        assert log.head(connection).entries == 0
        assert verify_database(connection).ok


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    db = Database(f"sqlite:///{folder}/state.db")
    db.migrate()
    fill(db, 6)
    return exported(db, folder / "log.jsonl").read_bytes()


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_is_found(sample, tmp_path, data):
    position = data.draw(st.integers(0, len(sample) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != sample[position]))
    path = tmp_path / "changed.jsonl"
    path.write_bytes(sample[:position] + bytes([value]) + sample[position + 1 :])
    found = verify_export(path)
    assert not found.ok
    assert found.first_bad == sample[:position].count(b"\n")


def test_every_position_is_covered(sample, tmp_path):
    path = tmp_path / "changed.jsonl"
    for position in range(len(sample)):
        path.write_bytes(sample[:position] + bytes([sample[position] ^ 0x20]) + sample[position + 1 :])
        assert not verify_export(path).ok, position


@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_removal_insertion_reordering_and_extra_bytes_are_found(sample, tmp_path, data):
    lines = sample.splitlines(keepends=True)
    first = data.draw(st.integers(0, len(lines) - 2))
    second = data.draw(st.integers(first + 1, len(lines) - 1))
    swapped = [*lines]
    swapped[first], swapped[second] = swapped[second], swapped[first]
    cut = data.draw(st.integers(1, len(sample) - 1).filter(lambda place: sample[place - 1 : place] != b"\n"))
    path = tmp_path / "changed.jsonl"
    for changed in [
        b"".join(lines[:first] + lines[first + 1 :]),
        b"".join([*lines[:second], lines[first], *lines[second:]]),
        b"".join(swapped),
        sample[:cut],
        sample + b"\n",
        sample.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + sample,
        sample + b" ",
    ]:
        path.write_bytes(changed)
        assert not verify_export(path).ok


def test_a_head_kept_elsewhere_finds_truncation_and_rewriting(db, tmp_path):
    key = keys.signing_key(tmp_path / "keys")
    fill(db, 4)
    exported(db, tmp_path / "old.jsonl", key)
    kept = tmp_path / "kept.head"
    kept.write_bytes(log.head_path(tmp_path / "old.jsonl").read_bytes())
    fill(db, 3)
    path = exported(db, tmp_path / "log.jsonl", key)
    found = verify_export(path, key.public, kept)
    assert found.ok
    assert found.freshness.startswith("contains everything up to entry 4")
    assert verify_export(path, key.public).freshness.startswith("signed up to entry 7")
    lines = path.read_bytes().splitlines(keepends=True)
    bare = tmp_path / "bare.jsonl"
    bare.write_bytes(b"".join(lines[:3]))
    assert verify_export(bare).ok
    cut = verify_export(bare, key.public, kept)
    assert not cut.ok
    assert "cut off" in cut.message
    bare.write_bytes(b"".join(lines[:4]))
    assert verify_export(bare, key.public, kept).ok
    log.head_path(bare).write_bytes(log.head_path(path).read_bytes())
    assert not verify_export(bare).ok

    other = Database(f"sqlite:///{tmp_path}/other.db")
    other.migrate()
    fill(other, 9)
    rewritten = exported(other, tmp_path / "rewritten.jsonl")
    assert verify_export(rewritten).ok
    assert "rewritten" in verify_export(rewritten, key.public, kept).message
    exported(other, rewritten, keys.signing_key(tmp_path / "forger"))
    assert not verify_export(rewritten, key.public).ok
    exported(other, rewritten)
    assert not log.head_path(rewritten).exists()
    with pytest.raises(ExportUnreadable):
        verify_export(rewritten, key.public)


def test_any_changed_byte_of_a_head_is_found(db, tmp_path):
    key = keys.signing_key(tmp_path / "keys")
    fill(db, 2)
    path = exported(db, tmp_path / "log.jsonl", key)
    whole = log.head_path(path).read_bytes()
    for position in range(len(whole)):
        changed = whole[:position] + bytes([whole[position] ^ 0x20]) + whole[position + 1 :]
        log.head_path(path).write_bytes(changed)
        assert not verify_export(path, key.public).ok, position


def test_keys_are_made_once_and_private(tmp_path):
    key = keys.signing_key(tmp_path)
    assert keys.key_id(keys.signing_key(tmp_path).public) == keys.key_id(key.public)
    assert keys.key_id(keys.read_public_key(tmp_path / keys.PUBLIC_NAME)) == keys.key_id(key.public)
    private = tmp_path / keys.PRIVATE_NAME
    assert private.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [keys.PRIVATE_NAME, keys.PUBLIC_NAME]
    private.chmod(0o644)
    with pytest.raises(keys.KeyUnusable, match="chmod 600"):
        keys.signing_key(tmp_path)
    private.chmod(0o600)
    private.write_text("junk")
    with pytest.raises(keys.KeyUnusable):
        keys.signing_key(tmp_path)
    with pytest.raises(keys.KeyUnusable):
        keys.read_public_key(tmp_path / "absent.pem")


ROW = tables.log.c


def changed(column: str, change) -> object:
    """What to write into one column of a row, made from what stands there."""
    return lambda row: {column: change(getattr(row, column))}


@pytest.mark.parametrize(
    ("position", "change", "first_bad"),
    [
        (3, changed("body", lambda body: body.replace(b"s3", b"s4")), 3),
        (3, changed("body", lambda body: body + b" "), 3),
        (3, changed("body", lambda body: b"\0"), 3),
        (2, changed("hash", lambda text: "x" + text[1:]), 2),
        (2, changed("root", lambda text: "0" * 64), 2),
        (1, changed("peaks", lambda text: text + " "), 1),
        (4, changed("position", lambda number: 9), 4),
    ],
)
def test_changes_of_live_rows_are_found(db, position, change, first_bad):
    fill(db, 5)
    with db.read() as connection:
        row = connection.execute(select(tables.log).where(ROW.position == position)).one()
    tamper(db, update(tables.log).where(ROW.position == position).values(**change(row)))
    with db.read() as connection:
        found = verify_database(connection)
    assert (found.ok, found.first_bad) == (False, first_bad)


@pytest.mark.parametrize("position", [0, 2])
def test_removed_live_rows_are_found(db, position):
    fill(db, 5)
    tamper(db, delete(tables.log).where(ROW.position == position))
    with db.read() as connection:
        found = verify_database(connection)
    assert (found.ok, found.first_bad) == (False, position)


def test_inserted_live_rows_are_found(db):
    fill(db, 5)
    with db.read() as connection:
        last = connection.execute(select(tables.log).where(ROW.position == 4)).mappings().one()
    tamper(db, insert(tables.log).values(**{**last, "position": 9}))
    with db.read() as connection:
        found = verify_database(connection)
    assert (found.ok, found.first_bad) == (False, 5)


def test_truncation_of_live_rows_needs_a_known_head(db, tmp_path):
    fill(db, 5)
    with db.read() as connection:
        known = ("kept.head", keys.signing_key(tmp_path).sign(log.head(connection)))
    tamper(db, delete(tables.log).where(ROW.position > 2))
    with db.read() as connection:
        assert verify_database(connection).ok
        assert not verify_database(connection, known).ok


def test_nothing_is_appended_to_a_damaged_end(db):
    fill(db, 3)
    tamper(db, update(tables.log).where(ROW.position == 2).values(body=b"{}"))
    with pytest.raises(LogDamaged, match="entry 2"):
        fill(db, 1)
    with db.read() as connection, pytest.raises(LogDamaged):
        log.entries(connection)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[31mred", "x" * 201, "\u202eevil"])
def test_actors_have_readable_names(name):
    with pytest.raises(log.ActorUnnamed, match="--as"):
        Actor(name, assured=False)


def test_details_must_be_json(db):
    with pytest.raises(NotCanonical), db.begin() as connection:
        log.append(connection, "thing.done", ALICE, "s", {"n": 2**60})
    with db.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM log")).scalar_one() == 0


def test_a_line_is_its_own_canonical_form(sample):
    for line in sample.splitlines():
        assert canonical(json.loads(line)) == line


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@given(details=st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=4), loose=st.booleans(), plain=st.booleans())
@settings(max_examples=300, deadline=None)
def test_the_fast_way_takes_only_what_is_canonical(details, loose, plain):
    body = {
        "index": 3,
        "at": "2026-01-31T12:00:00.000000Z",
        "actor": {"name": "é", "assured": True, "how": "system"},
        "action": "thing.done",
        "subject": "s",
        "details": details,
        "previous": "p",
    }
    separators = (", ", ": ") if loose else (",", ":")
    for sort in (True, False):
        content = json.dumps(body, sort_keys=sort, ensure_ascii=plain, separators=separators).encode(
            "utf-8", "surrogatepass"
        )
        try:
            expected = canonical(parse_json(content)) == content
        except NotCanonical:
            expected = False
        assert expected or not _plain_body(content, 3, "p")
    assert not _plain_body(content, 4, "p")
    assert not _plain_body(content, 3, "q")


def test_ordinary_entries_go_the_fast_way(sample):
    previous = ""
    for index, line in enumerate(sample.splitlines()):
        value = json.loads(line)
        assert _plain_body(canonical({**value["body"], "details": {"n": index}}), index, previous)
        previous = value["hash"]
