"""A damaged end of the log has a way out that leaves everything there and says so."""

import pytest
from sqlalchemy import delete, insert, select, text, update
from tampering import tamper

from components.audit import decisions, keys, log, mending
from components.audit.keys import read_head
from components.audit.log import Actor, Deed, LogDamaged
from components.audit.mending import NotMended
from components.audit.verify import verify_database
from components.storage import privileges, tables
from components.storage.database import AccountRefused, Database
from components.storage.objects import digest_of

ADA = Actor("ada", assured=True, how="os-user")
ROW = tables.log.c


def fill(db: Database, number: int) -> None:
    with db.begin() as connection:
        log.append_all(connection, [Deed("thing.done", ADA, f"s{count}", {}) for count in range(number)])


def guard_again(db: Database) -> None:
    """The triggers that `tamper` took away."""
    if db.engine.dialect.name == "postgresql":
        with db.begin() as connection:
            connection.execute(text("ALTER TABLE log ENABLE TRIGGER USER"))


def garbage_row(db: Database) -> None:
    """As any account could leave one before: no entry at all, after which nothing is appended."""
    triggers = _triggers(db)
    row = {"position": 5, "body": b"garbage", "hash": "x", "root": "x", "peaks": "x"}
    tamper(db, insert(tables.log).values(**row))
    _restore(db, triggers)


def altered_last(db: Database) -> None:
    triggers = _triggers(db)
    tamper(db, update(tables.log).where(ROW.position == 4).values(body=b"{}"))
    _restore(db, triggers)


def _triggers(db: Database) -> list[str]:
    if db.engine.dialect.name == "postgresql":
        return []
    with db.read() as connection:
        found = connection.execute(text("SELECT sql FROM sqlite_master WHERE type = 'trigger'")).scalars()
        return [str(one) for one in found]


def _restore(db: Database, triggers: list[str]) -> None:
    guard_again(db)
    with db.begin() as connection:
        for one in triggers:
            connection.execute(text(one.replace(":", r"\:")))


@pytest.mark.parametrize(
    ("damage", "kept"), [(garbage_row, 5), (altered_last, 4)], ids=lambda one: getattr(one, "__name__", "")
)
def test_a_damaged_end_is_set_aside_and_the_log_goes_on(database, damage, kept):
    fill(database, 5)
    damage(database)
    with pytest.raises(LogDamaged, match="lcia audit set-aside"):
        fill(database, 1)
    with database.read() as connection:
        body = connection.execute(select(ROW.body).order_by(ROW.position.desc()).limit(1)).scalar_one()
        earlier = ("a head", keys.Head(4, "", "", ""))
    told = mending.set_aside(database, [earlier], ADA, "a row that is no entry")
    assert told == {"kept": kept, "rows": 1, "entry": kept}
    with database.read() as connection:
        found = verify_database(connection)
        entry = log.entries(connection)[-1]
        moved = connection.execute(select(tables.log_set_aside)).one()
    assert (found.ok, found.entries) == (True, kept + 1)
    assert (entry.action, entry.actor, entry.details["reason"]) == ("log.set_aside", ADA, "a row that is no entry")
    assert entry.details["hashes"] == [{"position": moved.position, "sha256": digest_of(bytes(body))}]
    assert (bytes(moved.body), moved.entry) == (bytes(body), kept)
    fill(database, 2)
    for statement in ("DELETE FROM log", "UPDATE log SET hash = 'x'"):
        with pytest.raises(Exception, match="insert-only"), database.begin() as connection:
            connection.execute(text(statement))


def test_what_a_kept_head_speaks_of_is_not_given_up(database, tmp_path):
    fill(database, 5)
    with database.read() as connection:
        signed = keys.signing_key(tmp_path).sign(log.head(connection))
    altered_last(database)
    with pytest.raises(NotMended, match=r"kept.head speaks of 5 entries, and 4 are whole.*backup"):
        mending.set_aside(database, [("kept.head", read_head(signed, None))], ADA, "x")
    with database.read() as connection:
        assert log.count(connection) == 5


def test_a_whole_log_is_left_alone(database):
    fill(database, 3)
    with pytest.raises(NotMended, match="all 3 entries of the log are whole"):
        mending.set_aside(database, [], ADA, "x")


def test_an_end_that_a_decision_rests_on_is_not_given_up(database):
    fill(database, 5)
    with database.begin() as connection:
        connection.execute(
            text("PRAGMA defer_foreign_keys = ON" if database.engine.dialect.name == "sqlite" else "SELECT 1")
        )
        _decision(connection, entry=4)
    altered_last(database)
    with pytest.raises(NotMended, match="the decision of epoch 1 was entered after the last whole entry 3"):
        mending.set_aside(database, [], ADA, "x")


def _decision(connection, entry: int) -> None:
    moment = "2026-01-01T00:00:00.000000Z"
    connection.execute(
        text(
            "INSERT INTO candidates (digest, assistant, number, state, reason, task, task_name, evidence, verdict, "
            "attempt, submitted_by, launched_by, marks, created_at, changed_at) VALUES ('v', 'a', 1, 'promoted', '', "
            f"'t', 't', 'e', 'pass', 1, 's', 'l', '[]', '{moment}', '{moment}')"
        )
    )
    connection.execute(
        text(
            'INSERT INTO promotions (name, epoch, version, kind, "by", assured, reason, evidence, marks, at, entry) '
            f"VALUES ('a', 1, 'v', 'promotion', 'ada', true, '', 'e', '[]', '{moment}', {entry})"
        )
    )


def test_a_forged_decision_is_disowned_and_stays_in_the_log(database):
    fill(database, 2)
    with database.begin() as connection:
        forged = log.append(connection, "champion.promoted", ADA, "f" * 64, {"assistant": "a", "epoch": 1})
    with pytest.raises(decisions.ChampionUnexplained), database.read() as connection:
        decisions.need_decision(connection, "a")
    with database.read() as connection:
        assert not verify_database(connection).ok
    with pytest.raises(NotMended, match="entry 0 moves no champion"):
        mending.disown(database, 0, ADA, "x")
    assert mending.disown(database, forged.index, ADA, "nobody decided it") == {"disowned": 2, "entry": 3}
    with pytest.raises(NotMended, match="is disowned already"):
        mending.disown(database, forged.index, ADA, "again")
    with database.read() as connection:
        assert decisions.need_decision(connection, "a") is None
        assert verify_database(connection).ok
        assert log.at(connection, 2) == forged


def test_only_the_owner_of_the_tables_mends(postgresql):
    name = postgresql.new()
    postgresql.execute(privileges.script(), name)
    owner = Database(postgresql.url(name))
    fill(owner, 5)
    with owner.begin() as connection:
        forged = log.append(connection, "champion.promoted", ADA, "f" * 64, {"assistant": "a", "epoch": 1})
    try:
        for account in privileges.ACCOUNTS:
            db = Database(postgresql.url(name, f"lcia_{account}"))
            with pytest.raises(AccountRefused):
                mending.disown(db, forged.index, ADA, "x")
            db.engine.dispose()
        altered = update(tables.log).where(ROW.position == 5).values(body=b"{}")
        tamper(owner, altered)
        guard_again(owner)
        for account in privileges.ACCOUNTS:
            db = Database(postgresql.url(name, f"lcia_{account}"))
            with pytest.raises(AccountRefused):
                mending.set_aside(db, [], ADA, "x")
            db.engine.dispose()
        with owner.read() as connection:
            assert log.count(connection) == 6
    finally:
        owner.engine.dispose()
        postgresql.drop(name)


def test_nothing_is_deleted_by_the_way(database):
    fill(database, 3)
    with pytest.raises(Exception, match="insert-only"), database.begin() as connection:
        connection.execute(delete(tables.log))
