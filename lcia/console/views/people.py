"""People and programs: who may sign in, which roles they have, and the tokens that stand for them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from components.identity.access import EVERYWHERE, ROLES, TABLE, Permission
from components.names import same_person
from lcia.console.base import Console, form_of
from lcia.console.tables import Column, TableQuery, arrange
from lcia.operations import queue

SHUT_OUT = "shut out"
"""State of somebody who may not sign in any more."""
PEOPLE: tuple[Column[Mapping[str, Any]], ...] = (
    Column("name", "Name", lambda row: row["name"]),
    Column("state", "State", lambda row: row["state"], pick=True),
    Column("roles", "Roles", lambda row: ", ".join(f"{one['role']} {one['site']}" for one in row["roles"])),
    Column("subject", "Signs in as", lambda row: row["subject"], wide=True,
           hint="Account at the identity provider; none for a program, which has tokens."),
    Column("created_at", "Since", lambda row: row["created_at"], wide=True),
)  # fmt: skip
TOKENS: tuple[Column[Mapping[str, Any]], ...] = (
    Column("person", "Person", lambda row: row["person"]),
    Column("label", "Purpose", lambda row: row["label"]),
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
        answer = console.ask(reader, "people")
        everybody = [_person(one) for one in answer["people"]]
        accounts = [person for person in everybody if person["state"] != SHUT_OUT]
        tokens = [_token(one) for one in console.ask(reader, "tokens")["tokens"]]
        params = dict(request.query_params)
        return console.page(
            reader,
            "people.html",
            people=arrange(TableQuery("people", params, "name"), PEOPLE, everybody),
            tokens=arrange(TableQuery("tokens", params, "state"), TOKENS, tokens),
            proposals=answer["proposals"],
            accounts=accounts,
            holders=[person["name"] for person in accounts if _may_hold(person, reader.name)],
            grants=[(person["name"], role) for person in everybody for role in person["roles"]],
            roles=ROLES,
            sites=[EVERYWHERE, *queue.owners(console.instance)],
            permissions=get_args(Permission),
            table_of=TABLE,
        )

    @router.get("/tokens")
    def own(request: Request) -> Response:
        """One's own tokens."""
        reader = console.reader(request)
        tokens = [_token(one) for one in console.ask(reader, "tokens", person=reader.name)["tokens"]]
        table = arrange(TableQuery("tokens", dict(request.query_params), "state"), TOKENS, tokens)
        return console.page(reader, "tokens.html", tokens=table, permissions=get_args(Permission))

    @router.post("/people/token")
    async def token(request: Request) -> Response:
        """Make a token; the answer is the one page that ever holds its text, and no browser keeps it."""
        fields = await form_of(request)
        form = await request.form()
        params = {
            "person": fields.get("person", ""),
            "label": fields.get("label", ""),
            "days": fields.get("days") or None,
            "permissions": [value for value in form.getlist("permissions") if isinstance(value, str)],
        }

        def create() -> Response:
            reader = console.reader(request)
            token = console.ask(reader, "create-token", **{k: v for k, v in params.items() if v is not None})
            return console.page(reader, "token_made.html", token=token)

        return await run_in_threadpool(create)

    return router


def _may_hold(person: Mapping[str, Any], reader: str) -> bool:
    """True if the reader may make a token for a person: themself, or one who neither decides nor administers."""
    return not person["power"] or same_person(person["name"], reader)


def _person(one: Mapping[str, Any]) -> dict[str, Any]:
    state = SHUT_OUT if one["disabled_at"] else "known person" if one["roles"] else "no role"
    return {**one, "state": state}


def _token(one: Mapping[str, Any]) -> dict[str, Any]:
    is_over = datetime.fromisoformat(one["expires_at"]) <= datetime.now(UTC)
    return {**one, "state": "revoked" if one["revoked_at"] else "expired" if is_over else "counts"}
