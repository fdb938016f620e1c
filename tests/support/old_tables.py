"""Tables as a release before had them; what a test puts into them goes through the migrations that came since."""

from alembic import command

from components.storage import database
from components.storage.database import Database


def at_revision(db: Database, revision: str) -> Database:
    """Make the tables of a release in an empty database."""
    config = database._alembic()
    with db.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return db
