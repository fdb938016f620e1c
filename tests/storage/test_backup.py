"""Backup and restore, really done: the log verifies and the champion is there afterwards."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from promotion_state import BOB, SITE, State

from components.audit.verify import verify_database
from components.promotion import approvals, champion
from components.settings import PolicySettings
from components.storage import privileges
from components.storage.database import Database
from components.storage.objects import ObjectStore
from components.storage.privilege_checks import check_privileges


def promoted(db: Database, folder: Path) -> str:
    state = State(folder, db, ObjectStore(f"file://{folder}/objects"))
    made = state.candidate("news", None)
    approvals.approve(db, state.store, assistant="a", version=1, actor=BOB, reason="fine", policy=PolicySettings())
    champion.promote(db, state.store, assistant="a", version=1, actor=SITE, policy=PolicySettings(), reason="go")
    return made.digest


def restored(db: Database) -> str:
    """Digest of the champion, of a database that takes entries and refuses changes of the log as before."""
    found = check_privileges(db)
    assert found.ok, found.words()
    with db.read() as connection:
        assert verify_database(connection).ok
        now = champion.current(connection, "a")
    assert now is not None
    return now.version


def test_postgresql_comes_back_from_a_dump(postgresql, tmp_path):
    name, again = postgresql.new(), postgresql.new("template0")
    postgresql.execute(privileges.script(), name)
    db = Database(postgresql.url(name))
    digest = promoted(db, tmp_path)
    at = ["-h", str(postgresql.folder), "-U", "postgres"]
    dump = tmp_path / "lcia.dump"
    for command in [
        [postgresql.programs / "pg_dump", *at, "-Fc", "-f", dump, name],
        [postgresql.programs / "pg_restore", *at, "--exit-on-error", "-d", again, dump],
    ]:
        subprocess.run(command, check=True, env={**os.environ, "LC_ALL": "C"})
    postgresql.execute(privileges.script(), again)
    try:
        assert restored(Database(postgresql.url(again))) == digest
        for account in privileges.ACCOUNTS:
            assert check_privileges(Database(postgresql.url(again, f"lcia_{account}"))).ok
        state = State(
            tmp_path, Database(postgresql.url(again, "lcia_worker")), ObjectStore(f"file://{tmp_path}/objects")
        )
        assert state.candidate("mail", digest).number == 2  # counting goes on where it was
    finally:
        postgresql.drop(name)
        postgresql.drop(again)


@pytest.mark.parametrize("way", ["backup", "vacuum"])
def test_sqlite_comes_back_from_a_copy_made_while_it_is_open(tmp_path, way):
    db = Database(f"sqlite:///{tmp_path}/lcia.db")
    db.migrate()
    digest = promoted(db, tmp_path)
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(tmp_path / "lcia.db")) as source:
        if way == "backup":
            with closing(sqlite3.connect(copy)) as target:
                source.backup(target)
        else:
            source.execute("VACUUM INTO ?", (str(copy),))
    assert restored(Database(f"sqlite:///{copy}")) == digest
