"""People and programs on record at a server, and their roles; every change goes into the log."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, insert, select, update

from components.audit.log import Actor, ActorUnnamed, append
from components.errors import LciaError
from components.identity.access import EVERYWHERE, ROLES, Grant
from components.names import fold
from components.storage.database import now
from components.storage.objects import Json
from components.storage.tables import grants, people
from components.visible import is_plain


class PersonUnknown(LciaError):
    """Nobody on record has this name, or nobody who may still act."""


class PersonRefused(LciaError):
    """A name, role or site that can't be recorded."""


OPERATOR = frozenset({"asserted", "os-user"})
"""Values of `Actor.how` for people who work on the state itself, without signing in anywhere."""


@dataclass(frozen=True)
class Person:
    """A person or program that may sign in."""

    name: str
    """Name in approvals and the log; never given to anybody else."""
    subject: str | None
    """Account of the identity provider: `issuer|subject`; None for programs."""
    created_at: datetime
    disabled_at: datetime | None
    grants: tuple[Grant, ...] = ()


def add(connection: Connection, name: str, *, actor: Actor, subject: str | None = None) -> Person:
    """Record a person without any role; a person on record stays unchanged.

    Raises:
        PersonRefused: the name belongs to another account.
        ActorUnnamed: the name is blank, too long, or has invisible characters.
    """
    Actor(name, assured=True)
    row = _row(connection, name)
    if row is not None:
        if subject not in {None, row["subject"]}:
            whose = "another account of the identity provider" if row["subject"] else "somebody without an account"
            raise PersonRefused(
                f"the name {name!r} belongs to {whose}; names in the log are never given twice, so this person needs "
                "another name"
            )
        return get(connection, name)
    if subject is not None:
        check_subject(connection, subject)
    if not is_plain(name):
        raise ActorUnnamed(f"{name!r} holds characters that don't show, or spaces around it; give a plain name")
    values = {"name": name, "folded": fold(name), "subject": subject, "created_at": now(connection)}
    connection.execute(insert(people).values(**values))
    append(connection, "person.added", actor, name, {"subject": subject})
    return get(connection, name)


def get(connection: Connection, name: str) -> Person:
    """A person by name.

    Raises:
        PersonUnknown: there is none.
    """
    row = _row(connection, name)
    if row is None:
        raise PersonUnknown(f"nobody goes by {name!r}; `lcia people` lists who is known")
    return _person(connection, row)


def by_subject(connection: Connection, subject: str) -> Person | None:
    """The person with an account of the identity provider, or None."""
    row = connection.execute(select(people).where(people.c.subject == subject)).mappings().one_or_none()
    return None if row is None else _person(connection, row)


def find(connection: Connection, reference: str) -> Person:
    """A person by account of the identity provider, `issuer|subject`, or by name.

    Raises:
        PersonUnknown: there is none.
    """
    person = by_subject(connection, reference.strip())
    return get(connection, reference) if person is None else person


def free_name(connection: Connection, name: str) -> str:
    """The name, with a number behind it if somebody else has it."""
    tries = (name if count == 1 else f"{name} ({count})" for count in range(1, 1000))
    return next(each for each in tries if _row(connection, each) is None)


def check_subject(connection: Connection, subject: str) -> None:
    """Check that an account is well formed, and nobody's yet.

    Raises:
        PersonRefused: it is not.
    """
    issuer, bar, inner = subject.partition("|")
    if not bar or not issuer or not inner or not is_plain(subject):
        raise PersonRefused(f"{subject!r} is no account; expected issuer|subject as the identity provider says them")
    owner = by_subject(connection, subject)
    if owner is not None:
        raise PersonRefused(
            f"{subject} signs in as {owner.name} already; grant roles to that person, for names in the log are never "
            "moved from one to another"
        )


def set_subject(
    connection: Connection, name: str, subject: str, *, actor: Actor, more: Mapping[str, Json] | None = None
) -> Person:
    """Record the account of the identity provider that somebody signs in by; `more` goes into the log.

    Raises:
        PersonUnknown.
    """
    person = get(connection, name)
    connection.execute(update(people).where(people.c.name == person.name).values(subject=subject))
    details: dict[str, Json] = {"subject": subject, "before": person.subject, **(more or {})}
    append(connection, "person.connected", actor, person.name, details)
    return get(connection, name)


def everybody(connection: Connection) -> list[Person]:
    """Everybody, by name."""
    rows = connection.execute(select(people).order_by(people.c.name)).mappings().all()
    return [_person(connection, row) for row in rows]


def grant(
    connection: Connection,
    name: str,
    role: str,
    site: str = EVERYWHERE,
    *,
    actor: Actor,
    more: Mapping[str, Json] | None = None,
) -> Person:
    """Give a role by hand; giving it twice changes nothing. Callers see to a second admin (`appointments`).

    Once given by hand, a role that a group of the identity provider gives too stays when the person leaves the group.
    `more` goes into the log.

    Raises:
        PersonUnknown; PersonRefused: there is no such role, or the site has no name.
    """
    person = get(connection, name)
    check_role(role, site)
    if Grant(role, site) not in by_hand(connection, person.name):  # type: ignore[arg-type] # checked
        connection.execute(delete(grants).where(_exact(person.name, role, site)))
        connection.execute(insert(grants).values(person=person.name, role=role, site=site))
        append(connection, "role.granted", actor, person.name, {"role": role, "site": site, **(more or {})})
    return get(connection, name)


def by_hand(connection: Connection, name: str) -> frozenset[Grant]:
    """Roles of a person that no group of the identity provider gives."""
    query = select(grants.c.role, grants.c.site).where(grants.c.person == name, grants.c.by_group.is_(False))
    return frozenset(Grant(role, site) for role, site in connection.execute(query))


def follow_groups(connection: Connection, name: str, target: Mapping[Grant, str], *, actor: Actor) -> Person:
    """Give and take back roles until the roles from groups are `target`, each with its group; others stay.

    The provider may take the last admin's role too: an operator can appoint another admin on the state itself.

    Raises:
        PersonUnknown; PersonRefused: no such role or site.
    """
    person = get(connection, name)
    given_by_group = frozenset(person.grants) - by_hand(connection, person.name)
    for one in sorted(given_by_group - target.keys(), key=str):
        connection.execute(delete(grants).where(_exact(person.name, one.role, one.site)))
        append(connection, "role.withdrawn", actor, person.name, {"role": one.role, "site": one.site, "group": True})
    for one in sorted(target.keys() - frozenset(person.grants), key=str):
        check_role(one.role, one.site)
        connection.execute(insert(grants).values(person=person.name, role=one.role, site=one.site, by_group=True))
        details: dict[str, Json] = {"role": one.role, "site": one.site, "group": target[one]}
        append(connection, "role.granted", actor, person.name, details)
    return get(connection, name)


def withdraw_grant(connection: Connection, name: str, role: str, site: str = EVERYWHERE, *, actor: Actor) -> Person:
    """Take a role back, but not from the last admin.

    Raises:
        PersonUnknown; PersonRefused: the person does not have it, or is the last admin.
    """
    person = get(connection, name)
    check_role(role, site)
    if Grant(role, site) not in person.grants:  # type: ignore[arg-type] # checked
        has = ", ".join(f"{each.role} at {each.site}" for each in person.grants) or "none"
        raise PersonRefused(f"{person.name} is not {role} at {site}; the roles of this person: {has}")
    if role == "admin" and admins(connection) == 1:
        raise PersonRefused(f"{person.name} is the last admin; make somebody else one first")
    connection.execute(delete(grants).where(_exact(person.name, role, site)))
    append(connection, "role.withdrawn", actor, person.name, {"role": role, "site": site})
    return get(connection, name)


def disable(connection: Connection, name: str, *, actor: Actor, reason: str) -> Person:
    """Shut somebody out: sign-ins and tokens stop working, decisions stand.

    Raises:
        PersonUnknown; PersonRefused: it is the last admin.
    """
    person = get(connection, name)
    if any(each.role == "admin" for each in person.grants) and admins(connection) == 1:
        raise PersonRefused(f"{person.name} is the last admin; make somebody else one first")
    if person.disabled_at is None:
        connection.execute(update(people).where(people.c.name == person.name).values(disabled_at=now(connection)))
        append(connection, "person.disabled", actor, person.name, {"reason": reason})
    return get(connection, name)


def anybody(connection: Connection) -> bool:
    """True if people are on record, as on a server; on a machine of one's own nobody has roles."""
    return connection.execute(select(people.c.name).limit(1)).first() is not None


def readable(connection: Connection) -> bool:
    """True if this process's account may read the table of people: the worker's may not."""
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.execute(select(func.has_table_privilege("people", "SELECT"))).scalar_one())


def among(connection: Connection, names: Iterable[str]) -> dict[str, Person]:
    """People on record with these names, by `fold`ed name."""
    keys = {fold(name) for name in names}
    rows = connection.execute(select(people).where(people.c.folded.in_(keys))).mappings().all()
    query = select(grants.c.person, grants.c.role, grants.c.site).where(grants.c.person.in_([r["name"] for r in rows]))
    by_person: dict[str, list[Grant]] = {}
    for person, role, site in connection.execute(query.order_by(grants.c.role, grants.c.site)):
        by_person.setdefault(person, []).append(Grant(role, site))
    return {row["folded"]: _from_row(row, by_person.get(row["name"], ())) for row in rows}


def roles(connection: Connection, name: str, site: str | None) -> set[str]:
    """The roles of a person at a site; none for a name that is not on record, or for somebody shut out."""
    row = _row(connection, name)
    if row is None or row["disabled_at"] is not None:
        return set()
    return {grant.role for grant in _person(connection, row).grants if site is None or grant.site in (EVERYWHERE, site)}


def admins(connection: Connection) -> int:
    """Number of people who may administer."""
    query = select(func.count(func.distinct(grants.c.person))).join(people, people.c.name == grants.c.person)
    return int(connection.execute(query.where(grants.c.role == "admin", people.c.disabled_at.is_(None))).scalar_one())


def check_role(role: str, site: str) -> None:
    """Refuse a role or site that can't be granted.

    Raises:
        PersonRefused: there is no such role, or the site has no name.
    """
    if role not in ROLES:
        raise PersonRefused(f"{role!r} is no role; the roles are {', '.join(ROLES)}")
    if not site.strip() or len(site) > 64:
        raise PersonRefused(f"{site!r} is no site; give the `owner` of its tasks, or {EVERYWHERE} for all")


def _exact(person: str, role: str, site: str) -> ColumnElement[bool]:
    return (grants.c.person == person) & (grants.c.role == role) & (grants.c.site == site)


def _row(connection: Connection, name: str) -> RowMapping | None:
    return connection.execute(select(people).where(people.c.folded == fold(name))).mappings().one_or_none()


def _person(connection: Connection, row: RowMapping) -> Person:
    query = select(grants.c.role, grants.c.site).where(grants.c.person == row["name"])
    rows = connection.execute(query.order_by(grants.c.role, grants.c.site)).all()
    return _from_row(row, [Grant(role, site) for role, site in rows])


def _from_row(row: RowMapping, own: Iterable[Grant]) -> Person:
    return Person(row["name"], row["subject"], row["created_at"], row["disabled_at"], tuple(own))
