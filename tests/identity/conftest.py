"""Fixtures of the identity tests: one database with a bootstrap admin."""

from pathlib import Path

import pytest

from components.audit.log import Actor
from components.identity import people
from components.storage.database import Database

ROOT = Actor("root", assured=True, how="os-user")


@pytest.fixture
def db(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path}/state.db")
    database.migrate()
    with database.begin() as connection:
        people.add(connection, "ada", actor=ROOT)
        people.grant(connection, "ada", "admin", actor=ROOT)
    return database
