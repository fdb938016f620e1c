"""People, their roles, and their tokens."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from components.audit.log import Actor
from components.identity import appointments, people, tokens
from components.identity.access import EVERYWHERE, Permission
from components.names import same_person
from components.roles import Role
from components.storage.objects import Json
from lcia.instance import Instance


def everybody(instance: Instance) -> Json:
    """Everybody who may sign in, their roles, and appointments that wait for another admin."""
    with instance.db.read() as connection:
        return {
            "people": [_person(person) for person in people.everybody(connection)],
            "proposals": [_appointment(one) for one in appointments.waiting(connection)],
        }


def add(instance: Instance, actor: Actor, person: str, subject: str | None = None, reason: str = "") -> Json:
    """Record somebody who may sign in, or connect them with an account; roles are granted apart."""
    with instance.db.begin() as connection:
        earlier = people.among(connection, [person])
        if earlier and subject is not None:
            holder, proposal = appointments.connect(connection, person, subject, actor=actor, reason=reason)
        else:
            holder, proposal = people.add(connection, person, subject=subject, actor=actor), None
    return {**_person(holder), "known": bool(earlier), "proposal": _appointment(proposal) if proposal else None}


def grant(
    instance: Instance,
    actor: Actor,
    person: str,
    role: Role,
    site: str = EVERYWHERE,
    *,
    take_back: bool = False,
    reason: str = "",
) -> Json:
    """Give a role at a site, or take it back; roles that decide or administer take two admins."""
    with instance.db.begin() as connection:
        proposal = None
        if take_back:
            name = people.find(connection, person).name
            holder = people.withdraw_grant(connection, name, role, site, actor=actor)
        else:
            holder, proposal = appointments.appoint(connection, person, role, site, actor=actor, reason=reason)
    return {**_person(holder), "proposal": _appointment(proposal) if proposal else None}


def answer_grant(instance: Instance, actor: Actor, proposal: int, reason: str, *, accept: bool) -> Json:
    """Accept or refuse a proposed role or account; accepting needs another admin than the one who proposed it."""
    with instance.db.begin() as connection:
        return _appointment(appointments.answer(connection, proposal, accept=accept, actor=actor, reason=reason))


def disable(instance: Instance, actor: Actor, person: str, reason: str) -> Json:
    """Shut somebody out; their decisions stand."""
    with instance.db.begin() as connection:
        return _person(people.disable(connection, person, actor=actor, reason=reason))


def token_list(instance: Instance, person: str | None = None) -> Json:
    """Tokens, without their secrets; of one person, or all."""
    with instance.db.read() as connection:
        entries = tokens.every(connection)
    return {"tokens": [_token(one) for one in entries if person is None or same_person(one.person, person)]}


def create_token(
    instance: Instance,
    actor: Actor,
    person: str,
    label: str,
    days: float = 90,
    permissions: Sequence[Permission] = (),
) -> Json:
    """Make a token; its secret is in this answer alone."""
    with instance.db.begin() as connection:
        token, secret = tokens.create(connection, person, label, timedelta(days=days), tuple(permissions), actor=actor)
    return {**_token(token), "token": secret}


def revoke_token(instance: Instance, actor: Actor, token: str, reason: str) -> Json:
    """End a token."""
    with instance.db.begin() as connection:
        return _token(tokens.revoke(connection, token, actor=actor, reason=reason))


def _person(person: people.Person) -> dict[str, Json]:
    return {
        "name": person.name,
        "subject": person.subject,
        "roles": [vars(grant) for grant in person.grants],
        "power": any(grant.role in appointments.POWER for grant in person.grants),
        "created_at": _text(person.created_at),
        "disabled_at": _text(person.disabled_at),
    }


def _appointment(one: appointments.Appointment) -> dict[str, Json]:
    times = {"proposed_at": _text(one.proposed_at), "ended_at": _text(one.ended_at)}
    return {**vars(one), **times, "state": one.state, "words": one.words}


def _token(token: tokens.Token) -> dict[str, Json]:
    fields = {name: _text(value) if isinstance(value, datetime) else value for name, value in vars(token).items()}
    return {**fields, "foreign": token.foreign}


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
