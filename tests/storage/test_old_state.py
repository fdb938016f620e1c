"""A state that the release before wrote goes on: `state_0005.json` is every row of one, as its own code left it."""

import base64
import json
from pathlib import Path

import pytest
from old_tables import at_revision
from sqlalchemy import MetaData, insert, select, text

from components.audit import decisions, log
from components.audit.log import SYSTEM, Actor
from components.audit.merkle import add_leaf, leaf_hash, root_of
from components.audit.verify import verify_database
from components.promotion import champion, policy, statements
from components.storage import tables
from components.storage.database import Database
from components.storage.objects import canonical, parse_json

STATE = Path(__file__).with_name("state_0005.json")


@pytest.fixture
def old(empty_database):
    """That state, in tables as they were."""
    db = at_revision(empty_database, "0005_parked_rows")
    known = MetaData()
    known.reflect(db.engine)
    rows = json.loads(STATE.read_text(encoding="utf-8"))
    with db.begin() as connection:
        for table in known.sorted_tables:
            for row in rows.get(table.name, ()):
                values = {name: _bytes(value) for name, value in row.items()}
                connection.execute(insert(table).values(**values))
                if connection.dialect.name == "postgresql" and isinstance(row.get("id"), int):
                    connection.execute(text(f"SELECT setval('{table.name}_id_seq', {row['id']})"))
    return db


def _bytes(value: object) -> object:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


def enter_as_before(db: Database, **fields) -> None:
    """An entry that any account could write into the log of that release."""
    with db.begin() as connection:
        last = connection.execute(
            text("SELECT position, hash, peaks, body FROM log ORDER BY position DESC LIMIT 1")
        ).one()
        value = parse_json(bytes(last.body)) | {"index": last.position + 1, "previous": last.hash} | fields
        body = canonical(value)
        peaks = add_leaf(log.read_peaks(last.peaks), last.position + 1, leaf_hash(body))
        row = {"position": last.position + 1, "body": body, "hash": leaf_hash(body).hex(), "root": root_of(peaks).hex()}
        row["peaks"] = " ".join(peak.hex() for peak in peaks)
        connection.execute(text("INSERT INTO log VALUES (:position, :body, :hash, :root, :peaks)"), row)


def test_it_is_whole_explained_and_goes_on(old):
    old.migrate()
    with old.read() as connection:
        found = verify_database(connection)
        made = champion.lineage(connection, "a")
        entries = statements.entries_of(connection, made)
        present = decisions.need_decision(connection, "a")
        standing = policy.in_force(connection, "a")
    assert (found.ok, found.entries) == (True, 37)
    assert found.state == "the log explains the state; 2 tokens are older than the check of their secrets"
    assert [entries[one.epoch].details["epoch"] for one in made] == [1, 2, 3]
    assert (present.index, present.action) == (made[-1].entry, "champion.rolled_back")
    assert (standing.settings.approval.quorum, standing.accepted_by) == (2, "bob")
    with old.begin() as connection:
        log.append(connection, "task.assessing", SYSTEM, "x")
        ada = Actor("ada", assured=True, how="console")
        made = policy.propose(connection, "a", {"approval": {"quorum": 3}}, actor=ada, reason="more")
        policy.accept(connection, "a", made.id, actor=Actor("bob", assured=True, how="console"), reason="yes")
        assert policy.in_force(connection, "a").id == made.id
    with old.read() as connection:
        assert verify_database(connection).ok


def test_a_forged_entry_of_before_is_not_taken_for_the_decision(old):
    with old.read() as connection:
        row = connection.execute(text("SELECT body FROM log WHERE position = 16")).scalar_one()
    told = parse_json(bytes(row))
    assert told["action"] == "champion.rolled_back"
    details = {**told["details"], "approvals": [{"person": "mallory", "assured": True, "reason": "x"}]}
    enter_as_before(old, action=told["action"], actor=told["actor"], subject=told["subject"], details=details)
    old.migrate()
    with old.read() as connection:
        made = champion.lineage(connection, "a")
        assert made[-1].entry == 16
        assert statements.entries_of(connection, made)[3].details.get("approvals") is None
        assert "epoch 3 of a was decided before, by entry 16" in verify_database(connection).message


def test_a_garbage_row_of_before_keeps_nobody_from_upgrading(old):
    with old.begin() as connection:
        values = {"body": b"garbage", "hash": "x", "root": "x", "peaks": "x"}
        connection.execute(text("INSERT INTO log VALUES (37, :body, :hash, :root, :peaks)"), values)
    old.migrate()
    with old.read() as connection:
        rows = connection.execute(
            select(tables.log.c.action, tables.log.c.subject).order_by(tables.log.c.position)
        ).all()
        found = verify_database(connection)
    assert (rows[-1], found.first_bad) == ((None, None), 37)
    assert all(row.action and row.subject for row in rows[:-1])


def test_a_decision_whose_entry_is_gone_is_said_to_be_unexplained(old):
    with old.begin() as connection:
        connection.execute(text("UPDATE promotions SET reason = reason, \"by\" = 'mallory' WHERE epoch = 3"))
    old.migrate()
    with old.read() as connection:
        assert champion.lineage(connection, "a")[-1].entry is None
        with pytest.raises(decisions.ChampionUnexplained, match="the log has no entry for the champion"):
            decisions.need_decision(connection, "a")
