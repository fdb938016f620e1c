"""Fixtures of the identity tests: one database with a bootstrap admin."""

import pytest
from bootstrap import ROOT

from components.identity import people
from components.storage.database import Database


@pytest.fixture
def db(database: Database) -> Database:
    with database.begin() as connection:
        people.add(connection, "ada", actor=ROOT)
        people.grant(connection, "ada", "admin", actor=ROOT)
    return database
