"""Sessions of browsers, kept in the database beside the signed cookie, so that signing out ends every copy of it."""

from datetime import timedelta
from typing import Any

from fastapi.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.identity import sessions
from components.storage.database import Database
from lcia.service.callers import PERSON

SIGN_IN = "sign_in"
"""Key of the session whose value finds its row."""
OPEN = ("/static/", "/health", "/metrics")
"""Addresses for which nobody has to sign in."""


class KeptSessions:
    """ASGI middleware inside the one that reads and signs the cookie.

    Before a request, a session that names a person but has no valid row is emptied. Afterwards, a session that newly
    names a person gets a row, and the row of a session that no longer names one ends.
    """

    def __init__(self, app: ASGIApp, db: Database, hours: float) -> None:
        """A sign-in counts for `hours`."""
        self.app, self.db, self.lifetime = app, db, timedelta(hours=hours)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the session, answer, then note what became of it."""
        if scope["type"] != "http" or scope["path"].startswith(OPEN):
            await self.app(scope, receive, send)
            return
        session: dict[str, Any] = scope["session"]
        if PERSON in session and not await run_in_threadpool(stands, self.db, session):
            session.clear()
        before = session.get(SIGN_IN)

        async def out(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._note(session, before)
            await send(message)

        await self.app(scope, receive, out)

    async def _note(self, session: dict[str, Any], before: str | None) -> None:
        person = session.get(PERSON)
        if before is not None and session.get(SIGN_IN) != before:
            await run_in_threadpool(self._end, before)
        if person is not None and SIGN_IN not in session:
            session[SIGN_IN] = await run_in_threadpool(self._begin, str(person))

    def _begin(self, person: str) -> str:
        with self.db.begin() as connection:
            return sessions.begin(connection, person, self.lifetime)

    def _end(self, text: str) -> None:
        with self.db.begin() as connection:
            sessions.end(connection, text)


def stands(db: Database, session: dict[str, Any]) -> bool:
    """True if a session's person is still signed in by it; streams ask again while they last."""
    with db.read() as connection:
        return sessions.stands(connection, str(session.get(SIGN_IN, "")), str(session[PERSON]))
