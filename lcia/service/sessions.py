"""Browsers' sessions kept in the database beside the signed cookie, so that signing out ends every copy of it."""

from datetime import timedelta
from typing import Any

from fastapi.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.identity import sessions
from components.storage.database import Database
from lcia.service.callers import PERSON

SIGN_IN = "sign_in"
"""Key of the session: what its row goes by."""
OPEN = ("/static/", "/health", "/metrics")
"""Addresses that ask for nobody."""


class KeptSessions:
    """ASGI middleware within the one that reads and signs the cookie.

    A session that names a person without a row that stands is emptied before anything sees it; one that names a person
    at the end and did not before gets a row; one that names nobody any more ends.
    """

    def __init__(self, app: ASGIApp, db: Database, hours: float) -> None:
        """`hours` is how long a sign-in counts."""
        self.app, self.db, self.lifetime = app, db, timedelta(hours=hours)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, answer, note."""
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
    """True if the person of a session is still signed in by it; also for what lasts longer than a request."""
    with db.read() as connection:
        return sessions.stands(connection, str(session.get(SIGN_IN, "")), str(session[PERSON]))
