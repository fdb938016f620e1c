"""What someone with the rights of the tables' owner can do: switch the log's triggers off, then write."""

from sqlalchemy import Executable, text

from components.storage.database import Database

TRIGGERS = ("log_no_update", "log_no_delete", "log_next_only", "log_whole_only", "log_linked_only")


def tamper(db: Database, *statements: Executable) -> None:
    """Run `statements` past every trigger of the log."""
    with db.begin() as connection:
        if connection.dialect.name == "sqlite":
            for name in TRIGGERS:
                connection.execute(text(f"DROP TRIGGER IF EXISTS {name}"))
        else:
            connection.execute(text("ALTER TABLE log DISABLE TRIGGER USER"))
        for statement in statements:
            connection.execute(statement)
