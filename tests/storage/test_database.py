"""The state database: one writer, insert-only log, migrations that agree with the tables."""

import io
import multiprocessing
import os
import shutil
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from old_tables import at_revision
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError

from components.audit import log
from components.audit.log import SYSTEM, Deed
from components.identity import people, sessions
from components.promotion import replicas
from components.registry.outbox import backlog
from components.storage import database, leases, results, rounds, tables
from components.storage.database import Database, DatabaseUnavailable, ValueRefused
from components.storage.sqlite import sqlite_file


@pytest.fixture
def db(database: Database) -> Database:
    return database


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    found = Database(f"sqlite:///{tmp_path}/deep/state.db")
    found.migrate()
    return found


COLUMNS = "position, body, hash, root, peaks"


def enter(connection, count: int = 1) -> None:
    log.append_all(connection, [Deed("thing.done", SYSTEM, f"s{number}", {}) for number in range(count)])


def fail_after_entering(connection) -> None:
    enter(connection)
    raise ZeroDivisionError


def test_migrations_make_exactly_the_tables(db):
    with db.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    db.migrate()


def test_the_schema_that_is_needed_is_that_of_the_newest_migration():
    config = Config()
    config.set_main_option("script_location", str(Path(tables.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_current_head() == database.SCHEMA


def test_the_same_migrations_compile_for_postgresql():
    out = io.StringIO()
    config = Config(output_buffer=out)
    config.set_main_option("script_location", str(Path(database.__file__).with_name("migrations")))
    config.set_main_option("sqlalchemy.url", "postgresql://nowhere/x")
    command.upgrade(config, "head", sql=True)
    assert "CREATE TRIGGER log_no_truncate BEFORE TRUNCATE ON log" in out.getvalue()
    assert "body BYTEA NOT NULL" in out.getvalue()


def test_a_database_of_the_release_before_keeps_what_waits_for_mlflow(empty_database):
    db = at_revision(empty_database, "0004")
    payload = '{"digest":"d","number":1,"state":"promoted"}'
    row = {"assistant": "a", "kind": "state", "payload": payload, "attempts": 2, "error": "away"}
    row |= {"at": "2026-11-30T00:00:00.000000Z"}
    names = ", ".join(row)
    with db.begin() as connection:
        connection.execute(text(f"INSERT INTO outbox ({names}) VALUES ({', '.join(f':{name}' for name in row)})"), row)
    db.migrate()
    with db.read() as connection:
        (waiting,) = backlog(connection, "a")
    assert (waiting.kind, waiting.number, waiting.attempts, waiting.error) == ("state", 1, 2, "away")
    assert waiting.parked_at is None, "it was not refused"


def test_a_database_of_the_release_before_gets_sign_ins_and_rounds_and_keeps_the_rest(empty_database):
    db = at_revision(empty_database, "0005_parked_rows")
    with db.begin() as connection:
        row = "INSERT INTO people (name, folded, created_at) VALUES ('ada', 'ada', '2026-11-30T00:00:00.000000Z')"
        connection.execute(text(row))
    db.migrate()
    with db.begin() as connection:
        assert people.get(connection, "ada").name == "ada"
        text_ = sessions.begin(connection, "ada", timedelta(hours=1))
        assert sessions.stands(connection, text_, "ada")
        rounds.record(connection, "mlflow", "service/h", "away")
        rounds.record(connection, "mlflow", "service/h", "away")
        (one,) = rounds.failing(connection)
    assert (one.failures, one.ok_at, one.error) == (2, None, "away")


def test_a_database_of_the_release_before_gets_replicas_and_keeps_the_rest(empty_database):
    db = at_revision(empty_database, "0010_sessions_and_rounds")
    with db.begin() as connection:
        rounds.record(connection, "mlflow", "service/h", "away")
    db.migrate()
    with db.begin() as connection:
        nothing = {"traffic": {}, "latency": {}, "trial": None, "actor": SYSTEM}
        replicas.record(connection, "a", "gw", engine="e", version=None, ready=False, problem="", **nothing)
        (one,) = replicas.fleet(connection, "a").replicas
        assert [each.name for each in rounds.failing(connection)] == ["mlflow"]
    assert (one.replica, one.version, one.trial) == ("gw", None, None)


def test_a_long_reader_lets_the_log_of_sqlite_grow_and_its_end_takes_it_away(tmp_path):
    db = Database(f"sqlite:///{tmp_path}/lcia.db")
    db.migrate()
    waiting = tmp_path / "lcia.db-wal"
    with db.read() as reader:
        rounds.failing(reader)
        for number in range(20):
            with db.begin() as connection:
                rounds.record(connection, "mlflow", "service/h", f"away {number}")
        assert rounds.failing(reader) == [], "one snapshot"
        assert waiting.stat().st_size > 20 * 4096
    with db.begin() as connection:
        rounds.record(connection, "mlflow", "service/h", None)
    assert not waiting.exists() or waiting.stat().st_size < 20 * 4096


def _migrate(url: str) -> None:
    Database(url).migrate()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_several_processes_may_migrate_at_once(tmp_path, request, kind):
    context = multiprocessing.get_context("fork")
    url = f"sqlite:///{tmp_path}/state.db"
    if kind == "postgresql":
        cluster = request.getfixturevalue("postgresql")
        url = cluster.url(cluster.new("template0"))
    processes = [context.Process(target=_migrate, args=(url,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4


def test_connections_are_durable_and_strict(sqlite):
    with sqlite.begin() as connection:
        seen = [
            connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ["journal_mode", "synchronous", "foreign_keys", "busy_timeout"]
        ]
    assert seen == ["wal", 2, 1, 30_000]


def test_foreign_keys_are_checked(db):
    values = {"name": "a", "version": "0" * 64, "epoch": 1, "decided_at": datetime.now(UTC)}
    with pytest.raises(IntegrityError), db.begin() as connection:
        connection.execute(insert(tables.champion).values(**values))


def test_readers_cannot_write(db):
    with pytest.raises(DatabaseUnavailable, match=r"read-?only"), db.read() as connection:
        enter(connection)


def test_the_clock_is_aware_utc_and_near(db):
    with db.read() as connection:
        moment = db.now(connection)
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(seconds=5)
    assert tables.moment_text(moment).endswith("Z")
    with pytest.raises(ValueError, match="no time zone"):
        tables.moment_text(datetime(2026, 1, 1))  # noqa: DTZ001


def test_an_exception_undoes_the_whole_transaction(db):
    with pytest.raises(ZeroDivisionError), db.begin() as connection:
        fail_after_entering(connection)
    with db.read() as connection:
        assert connection.execute(select(tables.log)).all() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log SET hash = 'x'",
        "UPDATE log SET position = 7 WHERE position = 1",
        "DELETE FROM log",
        "DELETE FROM log WHERE position = 1",
        f"INSERT OR REPLACE INTO log ({COLUMNS}) SELECT 1, body, 'x', root, peaks FROM log WHERE position = 0",
        f"INSERT INTO log ({COLUMNS}) SELECT 1, body, 'x', '', '' FROM log WHERE true ON CONFLICT DO NOTHING",
        "TRUNCATE log",
        "TRUNCATE candidates, log CASCADE",
        f"INSERT INTO log ({COLUMNS}) SELECT 3, body, hash, root, peaks FROM log WHERE position = 0",
    ],
)
def test_the_log_takes_nothing_but_its_next_entry(db, statement):
    foreign = "TRUNCATE" if db.engine.dialect.name == "sqlite" else "OR REPLACE"
    if foreign in statement:
        pytest.skip(f"no {foreign} here")
    with db.begin() as connection:
        enter(connection, 2)
    with pytest.raises(IntegrityError, match="the log"), db.begin() as connection:
        connection.execute(text(statement))
    with db.read() as connection:
        assert [row.position for row in connection.execute(select(tables.log))] == [0, 1]


def test_writers_take_turns_so_no_update_is_lost(db):
    lease = leases.acquire(db, "count", "w", 60)
    assert lease is not None

    def bump() -> None:
        for _ in range(10):
            with db.begin() as connection:
                seen = connection.execute(select(tables.leases.c.epoch)).scalar_one()
                connection.execute(update(tables.leases).values(epoch=seen + 1))

    threads = [threading.Thread(target=bump) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.read() as connection:
        assert connection.execute(select(tables.leases.c.epoch)).scalar_one() == 41


def test_unusable_databases_say_why(tmp_path):
    for url in ["nonsense", "sqlite://", "nosuch://x/y"]:
        with pytest.raises(DatabaseUnavailable):
            Database(url)
    (tmp_path / "junk.db").write_bytes(b"not a database at all, just text" * 100)
    with pytest.raises(DatabaseUnavailable):
        Database(f"sqlite:///{tmp_path}/junk.db").migrate()
    new = Database(f"sqlite:///{tmp_path}/new.db")
    with pytest.raises(DatabaseUnavailable, match="lacks a table"), new.read() as connection:
        connection.execute(select(tables.log)).all()


def test_a_missing_table_or_server_says_why(postgresql):
    new = Database(postgresql.url(postgresql.new("template0")))
    with pytest.raises(DatabaseUnavailable, match="lacks a table"), new.read() as connection:
        connection.execute(select(tables.log)).all()
    with pytest.raises(DatabaseUnavailable, match="does not exist"), Database(postgresql.url("none")).read():
        pass
    nobody_listens = Database("postgresql://x@127.0.0.1:1/none?connect_timeout=2")
    with pytest.raises(DatabaseUnavailable, match="does not answer"), nobody_listens.read():
        pass


def test_a_password_is_never_shown(caplog):
    url = "postgresql://worker:s3cret@127.0.0.1:1/lcia?connect_timeout=2"
    db = Database(url)
    with caplog.at_level("DEBUG"), pytest.raises(DatabaseUnavailable) as refused, db.read():
        pass
    for bad in [url.replace("postgresql", "nosuch"), url.replace(":1/", ":x/"), url.replace("://", ":/")]:
        with pytest.raises(DatabaseUnavailable) as unusable:
            Database(bad)
        assert unusable.value.__cause__ is None
        assert "s3cret" not in str(unusable.value)
    assert "s3cret" not in f"{refused.value} {refused.value.__cause__} {caplog.text} {db.url} {db.engine}"
    assert db.engine.dialect.driver == "psycopg"


def test_the_password_comes_from_where_postgresql_looks(postgresql, tmp_path, monkeypatch):
    name = postgresql.new()
    postgresql.execute("CREATE ROLE careful LOGIN PASSWORD 's3cret'")
    postgresql.require_password("careful")
    db = Database(postgresql.url(name, "careful"))
    with pytest.raises(DatabaseUnavailable, match="password"), db.read():
        pass
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(DatabaseUnavailable, match="password authentication failed"), db.read():
        pass
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    with db.read() as connection:
        assert connection.execute(text("SELECT current_user")).scalar_one() == "careful"
    db.engine.dispose()
    monkeypatch.delenv("PGPASSWORD")
    file = tmp_path / "pgpass"
    file.write_text("*:*:*:careful:s3cret\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    with db.read() as connection:
        assert connection.execute(text("SELECT current_user")).scalar_one() == "careful"
    db.engine.dispose()


def test_values_that_fit_no_column_are_refused(postgresql):
    db = Database(postgresql.url(postgresql.new()))
    moment = datetime.now(UTC)
    values = {"epoch": 1, "heartbeat": moment, "ttl": 1.0}
    for bad in [{"name": "x" * 129}, {"name": "a\0b"}, {"name": "a", "epoch": 2**40}]:
        with pytest.raises(ValueRefused), db.begin() as connection:
            connection.execute(insert(tables.leases).values(**{**values, **bad}))


def test_a_writer_waits_so_long_and_no_longer(postgresql, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 1)
    db = Database(postgresql.url(postgresql.new()))
    with db.begin(), pytest.raises(DatabaseUnavailable, match="stayed locked"), db.begin():
        pass
    with db.begin() as connection:
        assert db.now(connection)


def test_a_server_that_was_restarted_is_found_again(postgresql):
    db = Database(postgresql.url(postgresql.new()))
    with db.read() as connection:
        db.now(connection)
    postgresql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lcia'")
    with db.begin() as connection:
        assert db.now(connection)


def test_lease_is_exclusive_fenced_and_taken_over_when_it_runs_out(db):
    first = leases.acquire(db, "lineage", "a", 60)
    assert first == leases.Lease("lineage", "a", 1, 60)
    assert leases.acquire(db, "lineage", "b", 60) is None
    assert leases.acquire(db, "lineage", "a", 60) is None
    leases.renew(db, first)
    with db.begin() as connection:
        assert leases.holder(connection, "lineage") == first
        past = db.now(connection) - timedelta(seconds=61)
        connection.execute(update(tables.leases).values(heartbeat=past))
    second = leases.acquire(db, "lineage", "b", 60)
    assert second is not None
    assert second.epoch == 2
    with pytest.raises(leases.StaleLease, match="epoch 2"):
        leases.renew(db, first)
    leases.release(db, first)
    with db.read() as connection:
        leases.check(connection, second)
    leases.release(db, second)
    with db.read() as connection, pytest.raises(leases.StaleLease):
        leases.check(connection, second)
    third = leases.acquire(db, "lineage", "c", 60)
    assert third is not None
    assert third.epoch == 3


def _beat_at(db: Database, seconds: float) -> None:
    """Let the heartbeat of every lease lie so many seconds after now."""
    with db.begin() as connection:
        connection.execute(update(tables.leases).values(heartbeat=db.now(connection) + timedelta(seconds=seconds)))


def test_a_heartbeat_from_the_future_keeps_nobody_out(db):
    first = leases.acquire(db, "lineage", "a", 60)
    _beat_at(db, 2 * 86400)
    with db.read() as connection:
        assert leases.holder(connection, "lineage") is None
        (stands,) = leases.standing(connection)
    assert (stands.is_lost, stands.ahead) == (True, True)
    assert "172800 seconds in the future" in stands.words or "172799 seconds in the future" in stands.words
    second = leases.acquire(db, "lineage", "b", 60)
    assert second is not None
    assert second.epoch == 2
    with pytest.raises(leases.StaleLease):
        leases.renew(db, first)


def test_a_clock_that_was_set_back_a_little_takes_no_lease_away(db):
    leases.acquire(db, "lineage", "a", 60)
    _beat_at(db, 20)
    assert leases.acquire(db, "lineage", "b", 60) is None
    with db.read() as connection:
        (stands,) = leases.standing(connection)
    assert (stands.is_lost, stands.ahead) == (False, False)
    assert stands.words == "lineage is held by a, heard 0 seconds ago"


def test_a_lease_is_broken_where_its_owner_is_lost_or_by_force(db):
    first = leases.acquire(db, "lineage", "a", 60)
    with db.begin() as connection:
        with pytest.raises(leases.LeaseUnknown, match="held: lineage"):
            leases.break_lease(connection, "lineag")
        with pytest.raises(leases.LeaseAlive, match="--force"):
            leases.break_lease(connection, "lineage")
        assert leases.break_lease(connection, "lineage", force=True).owner == "a"
        with pytest.raises(leases.StaleLease):
            leases.check(connection, first)
    _, second = leases.acquire(db, "other", "a", 60), leases.acquire(db, "lineage", "a", 60)
    assert second.epoch == 3, "neither who had it before nor its epoch comes back"
    _beat_at(db, -61)
    with db.begin() as connection:
        assert leases.break_lease(connection, "lineage").is_lost


def _hold(url: str, ready) -> None:  # type: ignore[no-untyped-def]
    ready.put(leases.acquire(Database(url), "lineage", leases.process_owner("worker"), 3600).epoch)


def test_a_dead_process_of_this_host_is_taken_over_at_once(db):
    context = multiprocessing.get_context("fork")
    ready = context.Queue()
    process = context.Process(target=_hold, args=(db.engine.url.render_as_string(), ready))
    process.start()
    assert ready.get(timeout=30) == 1
    process.join()
    mine = leases.process_owner("worker")
    taken = leases.acquire(db, "lineage", mine, 3600)
    assert taken is not None
    assert taken.epoch == 2
    assert leases.acquire(db, "lineage", mine, 3600) is None


def test_only_processes_of_this_very_place_are_called_dead(db):
    mine = leases.process_owner("worker")
    role, host, place, pid, start = mine.rsplit("/", 4)
    assert not leases._is_dead(mine)
    assert leases._is_dead(f"{role}/{host}/{place}/{pid}/{int(start) + 1}")
    for other in [f"{role}/else/{place}/{pid}/1", f"{role}/{host}/other:1/{pid}/1", "worker-1", f"a/b/{pid}/1"]:
        assert not leases._is_dead(other)


def test_results_first_writer_wins_and_stale_writers_lose(db):
    lease = leases.acquire(db, "lineage", "a", 60)
    assert lease is not None
    with db.begin() as connection:
        assert results.find(connection, "k" * 64) is None
        first = results.record(connection, lease, "k" * 64, "tune", "1" * 64)
    with db.begin() as connection:
        assert results.record(connection, lease, "k" * 64, "tune", "2" * 64) == first
        assert results.find(connection, "k" * 64) == first
    leases.release(db, lease)
    leases.acquire(db, "lineage", "b", 60)
    with pytest.raises(leases.StaleLease), db.begin() as connection:
        results.record(connection, lease, "x" * 64, "tune", "1" * 64)


# -- files ------------------------------------------------------------------------------------------

NAMES = ["a b", "a%b", "a%20b", "a#b", "a&b=c", "a'b", 'a"b', "日本\N{IDEOGRAPHIC SPACE}é", "a[b]*", "a@b:c", "a\\b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_opened_as_it_is_spelt(tmp_path, name):
    file = tmp_path / name / "state.db"
    Database(f"sqlite:///{file}").migrate()
    assert file.exists()
    assert sqlite_file(f"sqlite:///{file}") == file
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a?b", "a?b=c", "a?mode=memory"])
def test_a_path_that_a_url_cannot_carry_is_refused(tmp_path, name):
    with pytest.raises(DatabaseUnavailable, match=r"rename the folder|in memory"):
        Database(f"sqlite:///{tmp_path}/{name}/state.db")
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / name / "state.db"
    Database(f"sqlite:///{file.as_uri().replace('file://', 'file:')}?uri=true").migrate()
    assert file.exists()
    assert sqlite_file("postgresql://me@host/name") is None
    assert sqlite_file("http://mlflow:5000") is None


def test_migrations_are_found_in_any_folder(tmp_path, monkeypatch):
    package = tmp_path / "50%s" / "storage"
    shutil.copytree(Path(database.__file__).with_name("migrations"), package / "migrations")
    monkeypatch.setattr(database, "__file__", str(package / "database.py"))
    Database(f"sqlite:///{tmp_path}/state.db").migrate()


def test_a_file_system_without_a_write_ahead_log_is_refused_at_once(tmp_path):
    """The VFS with locks by file has no shared memory, as network mounts have none."""
    found = Database(f"sqlite:///file:{tmp_path}/state.db?vfs=unix-dotfile&uri=true")
    with pytest.raises(DatabaseUnavailable, match=r"no write-ahead log; move LCIA_HOME"):
        found.migrate()


def test_a_later_schema_is_named(sqlite):
    with sqlite.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    for ask in (sqlite.migrate, sqlite.revisions):
        with pytest.raises(database.SchemaUnknown, match=r"has schema 9999_later.*Install that version"):
            ask()


@pytest.fixture
def no_rights(monkeypatch):
    """A process that may write nothing: root is not kept out by the modes of files."""
    monkeypatch.setattr(os, "access", lambda _path, mode, **_: mode != os.W_OK)


def test_a_read_only_file_is_read_and_not_written(sqlite, no_rights):
    folder = sqlite_file(sqlite.url).parent
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    sqlite.migrate()
    with sqlite.read() as connection:
        assert connection.execute(select(tables.log)).all() == []
    with pytest.raises(database.ReadOnly, match="this verb writes"), sqlite.begin() as connection:
        enter(connection)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_read_only_file_shows_what_waits_beside_it(sqlite, monkeypatch):
    writer = sqlite.engine.connect()  # an open connection keeps the changes beside the file
    with sqlite.begin() as connection:
        enter(connection)
    monkeypatch.setattr(os, "access", lambda _path, mode, **_: mode != os.W_OK)
    with sqlite.read() as connection:
        assert len(connection.execute(select(tables.log)).all()) == 1
    writer.close()


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("database or disk is full", "disk full; free space"),
        ("database disk image is malformed", "is damaged .*backup"),
        ("file is not a database", "is damaged .*backup"),
        ("unable to open database file", "can't be opened by user"),
        ("disk I/O error", "does not answer"),
    ],
)
def test_what_sqlite_reports_is_explained(sqlite, reason, words):
    with pytest.raises(DatabaseUnavailable, match=words), sqlite.read():
        raise OperationalError("SELECT 1", {}, sqlite3.OperationalError(reason))
