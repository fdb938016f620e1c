"""Sign-ins of browsers: a cookie is valid only while its row in the database is, for all copies of the cookie alike."""

import secrets
from datetime import timedelta

from sqlalchemy import Connection, delete, insert, select, update

from components.storage.database import now
from components.storage.objects import digest_of
from components.storage.tables import sessions


def begin(connection: Connection, person: str, lifetime: timedelta) -> str:
    """Begin a sign-in; returns the text for the cookie, of which the database keeps the hash. Forgets old sign-ins."""
    text, moment = secrets.token_urlsafe(32), now(connection)
    values = {"id": digest_of(text.encode()), "person": person, "began_at": moment, "ends_at": moment + lifetime}
    connection.execute(insert(sessions).values(**values))
    connection.execute(delete(sessions).where(sessions.c.ends_at < moment))
    return text


def stands(connection: Connection, text: str, person: str) -> bool:
    """True if the cookie's text is a sign-in of this person that has neither ended nor expired."""
    query = select(sessions).where(sessions.c.id == digest_of(text.encode()), sessions.c.person == person)
    row = connection.execute(query).one_or_none()
    return row is not None and row.ended_at is None and now(connection) < row.ends_at


def end(connection: Connection, text: str) -> None:
    """End a sign-in: no copy of the cookie is valid any more."""
    mine = (sessions.c.id == digest_of(text.encode())) & sessions.c.ended_at.is_(None)
    connection.execute(update(sessions).where(mine).values(ended_at=now(connection)))
