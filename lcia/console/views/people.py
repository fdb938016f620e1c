"""People and programs: who may sign in, which roles they have, and the tokens that stand for them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from components.identity.access import EVERYWHERE, ROLES, TABLE, Permission
from components.identity.appointments import POWER
from components.names import same_person
from components.tasks import queue
from lcia.console.base import Console, form_of
from lcia.console.tables import Asked, Column, arranged

PEOPLE: tuple[Column[Mapping[str, Any]], ...] = (
    Column("name", "Name", lambda row: row["name"]),
    Column("state", "State", lambda row: row["state"], pick=True),
    Column("roles", "Roles", lambda row: ", ".join(f"{one['role']} {one['site']}" for one in row["roles"])),
    Column("subject", "Signs in as", lambda row: row["subject"], wide=True,
           hint="Account at the identity provider; none for a program, which has tokens."),
    Column("created_at", "Since", lambda row: row["created_at"], wide=True),
)  # fmt: skip
TOKENS: tuple[Column[Mapping[str, Any]], ...] = (
    Column("person", "Of", lambda row: row["person"]),
    Column("label", "For", lambda row: row["label"]),
    Column("state", "State", lambda row: row["state"], pick=True),
    Column("expires_at", "Ends", lambda row: row["expires_at"]),
    Column("last_used_at", "Last used", lambda row: row["last_used_at"], wide=True),
    Column("permissions", "Limited to", lambda row: ", ".join(row["permissions"]), wide=True),
    Column("end", ""),
)


def routes(console: Console) -> APIRouter:
    """/people, and the answer that shows a new token once."""
    router = APIRouter(include_in_schema=False)

    @router.get("/people")
    def people(request: Request) -> Response:
        reader = console.reader(request)
        told = console.ask(reader, "people")
        known = [_person(one) for one in told["people"]]
        issued = [_token(one) for one in console.ask(reader, "tokens")["tokens"]]
        with console.instance.db.read() as connection:
            sites = queue.owners(connection, console.instance.assistant)
        asked = dict(request.query_params)
        return console.page(
            reader,
            "people.html",
            people=arranged(Asked("people", asked, "name"), PEOPLE, known),
            tokens=arranged(Asked("tokens", asked, "state"), TOKENS, issued),
            proposals=told["proposals"],
            names=[one["name"] for one in known if one["state"] != "shut out"],
            accounts=[one for one in known if one["state"] != "shut out"],
            holders=[one["name"] for one in known if _may_hold(one, reader.name)],
            granted=[(one["name"], role) for one in known for role in one["roles"]],
            roles=ROLES,
            sites=[EVERYWHERE, *sites],
            permissions=get_args(Permission),
            table_of=TABLE,
        )

    @router.get("/tokens")
    def own(request: Request) -> Response:
        """One's own tokens."""
        reader = console.reader(request)
        issued = [_token(one) for one in console.ask(reader, "tokens", person=reader.name)["tokens"]]
        table = arranged(Asked("tokens", dict(request.query_params), "state"), TOKENS, issued)
        return console.page(reader, "tokens.html", tokens=table, permissions=get_args(Permission))

    @router.post("/people/token")
    async def token(request: Request) -> Response:
        """Make a token; the answer is the one page that ever holds its text, and no browser keeps it."""
        fields = await form_of(request)
        sent = await request.form()
        asked = {
            "person": fields.get("person", ""),
            "label": fields.get("label", ""),
            "days": fields.get("days") or None,
            "permissions": [value for value in sent.getlist("permissions") if isinstance(value, str)],
        }

        def made() -> Response:
            reader = console.reader(request)
            given = {name: value for name, value in asked.items() if value is not None}
            found = console.ask(reader, "create-token", **given)
            return console.page(reader, "token_made.html", token=found)

        return await run_in_threadpool(made)

    return router


def _may_hold(one: Mapping[str, Any], reader: str) -> bool:
    """Whether the reader may make a token for somebody: themself, or who decides and administers nothing."""
    power = any(given["role"] in POWER for given in one["roles"])
    return one["state"] != "shut out" and (not power or same_person(one["name"], reader))


def _person(one: Mapping[str, Any]) -> dict[str, Any]:
    state = "shut out" if one["disabled_at"] else "known person" if one["roles"] else "no role"
    return {**one, "state": state}


def _token(one: Mapping[str, Any]) -> dict[str, Any]:
    ended = datetime.fromisoformat(one["expires_at"]) <= datetime.now(UTC)
    return {**one, "state": "revoked" if one["revoked_at"] else "expired" if ended else "counts"}
