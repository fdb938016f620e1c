"""Who gives whom the power to decide: two admins, and what one may do alone.

A role that decides or administers, and the account of the identity provider that somebody with such a role signs in by,
is proposed by one admin and accepted by another. One is enough in two cases, which the log names: `bootstrap`, for
`BOOTSTRAP` after the first admin came and until there has been a second one; and `operator`, for who works on the state
itself with the database's account, without signing in anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from components.audit import log
from components.audit.decisions import ADVICE
from components.audit.log import Actor, append
from components.errors import LciaError
from components.identity import people
from components.identity.access import EVERYWHERE, TABLE, Grant
from components.identity.people import OPERATOR, Person, PersonRefused
from components.names import same_person
from components.storage.database import is_ahead, now
from components.storage.objects import Json
from components.storage.tables import appointments, grants
from components.storage.tables import people as known
from components.visible import is_blank

POWER = TABLE["decide"] | TABLE["administer"]
"""Roles that two admins give."""
BOOTSTRAP = timedelta(days=7)
"""How long the first admin may appoint alone, if no second one ends it."""


class AppointmentRefused(LciaError):
    """A proposal that can't be, or an answer that this person can't give."""


@dataclass(frozen=True)
class Appointment:
    """A role, or an account of the identity provider, that somebody is to have."""

    id: int
    person: str
    role: str | None
    """None: it is about the account alone."""
    site: str | None
    subject: str | None
    """The account: to be connected or, where a role is proposed, the one that the person signs in by."""
    proposed_by: str
    proposed_at: datetime
    reason: str
    accepted_by: str | None
    ended_at: datetime | None
    """When it was accepted, or refused where nobody accepted it; None while it is open."""
    alone: str | None
    """Why one person was enough: `bootstrap` or `operator`; None where two did it."""

    @property
    def state(self) -> str:
        """open, accepted or refused."""
        return "open" if self.ended_at is None else "accepted" if self.accepted_by else "refused"

    @property
    def words(self) -> str:
        """What it gives, in words."""
        account = f", who signs in as {self.subject}" if self.subject else ""
        if self.role is None:
            return f"{self.person} signs in as {self.subject}"
        where = "all sites" if self.site == EVERYWHERE else self.site
        return f"{self.role} at {where} for {self.person}{account}"


def appoint(
    connection: Connection, reference: str, role: str, site: str = EVERYWHERE, *, actor: Actor, reason: str = ""
) -> tuple[Person, Appointment | None]:
    """Give a role or, where it takes two admins, propose it: then the proposal comes back too.

    `reference` is a name or, for somebody who signs in by the identity provider, the account: `issuer|subject`.

    Raises:
        PersonUnknown; PersonRefused: no such role or site, or a name that a stranger may have signed in with first.
        AppointmentRefused: a proposal without a reason.
    """
    person = people.find(connection, reference)
    people.check_role(role, site)
    if person.subject is not None and reference.strip() != person.subject:
        raise PersonRefused(
            f"{person.name} signs in as {person.subject} and chose that name there; if that is who you mean, name the "
            f"account: `lcia people grant '{person.subject}' {role}`"
        )
    if Grant(role, site) in people.by_hand(connection, person.name):  # type: ignore[arg-type] # checked
        return person, None
    if role not in POWER:
        return people.grant(connection, person.name, role, site, actor=actor), None
    made = _propose(connection, person, actor, reason, role=role, site=site, subject=person.subject)
    return people.get(connection, person.name), made


def connect(
    connection: Connection, name: str, subject: str, *, actor: Actor, reason: str = ""
) -> tuple[Person, Appointment | None]:
    """Let somebody who is known sign in by an account of the identity provider, or propose it.

    Two admins do it for somebody who has the power to decide, or another account.

    Raises:
        PersonUnknown; PersonRefused: the account is somebody else's, or no account.
        AppointmentRefused: a proposal without a reason.
    """
    person = people.get(connection, name)
    if person.subject == subject:
        return person, None
    people.check_subject(connection, subject)
    if person.subject is None and not has_power(person):
        return people.set_subject(connection, person.name, subject, actor=actor), None
    made = _propose(connection, person, actor, reason, role=None, site=None, subject=subject)
    return people.get(connection, person.name), made


def answer(connection: Connection, identity: int, *, accept: bool, actor: Actor, reason: str) -> Appointment:
    """Accept what another admin proposed, or refuse it; its own author may refuse it too.

    Raises:
        AppointmentRefused: it is unknown, ended, the actor's own, its author is no admin any more, or the person signs
            in by another account than when it was proposed.
    """
    if is_blank(reason):
        raise AppointmentRefused("an answer needs a reason that others can read later; give it with --reason")
    made = get(connection, identity)
    if made.state != "open":
        raise AppointmentRefused(f"proposal {identity} is {made.state} already; propose it again")
    if not accept:
        return _end(connection, made, actor, reason, accepted=False)
    if same_person(made.proposed_by, actor.name):
        raise AppointmentRefused(f"{actor.name} proposed {identity} and can't accept it; another admin has to")
    if actor.how not in OPERATOR and "admin" not in people.roles(connection, made.proposed_by, None):
        raise AppointmentRefused(f"{made.proposed_by}, who proposed {identity}, is no admin any more; propose it again")
    _need_entry(connection, made)
    person = people.get(connection, made.person)
    if made.role is not None and person.subject != made.subject:
        raise AppointmentRefused(
            f"{person.name} signs in as {person.subject or 'nobody'}, and as {made.subject or 'nobody'} when it was "
            "proposed; propose it again"
        )
    return _end(connection, made, actor, reason, accepted=True)


def _need_entry(connection: Connection, made: Appointment) -> None:
    """Refuse a proposal that the log does not have as it stands: somebody wrote it into the database."""
    entries = log.newest(connection, ["appointment.proposed"], made.person)
    entry = next((one for one in entries if one.details.get("appointment") == made.id), None)
    told = {} if entry is None else {"proposed_by": entry.actor.name, **entry.details}
    if any(told.get(name) != getattr(made, name) for name in ("proposed_by", "role", "site", "subject")):
        raise AppointmentRefused(f"proposal {made.id} is not what was proposed: {ADVICE}")


def get(connection: Connection, identity: int) -> Appointment:
    """One proposal.

    Raises:
        AppointmentRefused: there is none of this number.
    """
    row = connection.execute(select(appointments).where(appointments.c.id == identity)).mappings().one_or_none()
    if row is None:
        raise AppointmentRefused(f"there is no proposal {identity}; `lcia people` lists them")
    return Appointment(**row)


def waiting(connection: Connection) -> list[Appointment]:
    """Proposals that nobody answered yet, oldest first."""
    query = select(appointments).where(appointments.c.ended_at.is_(None)).order_by(appointments.c.id)
    return [Appointment(**row) for row in connection.execute(query).mappings()]


def has_power(person: Person) -> bool:
    """Whether somebody decides or administers anywhere."""
    return any(grant.role in POWER for grant in person.grants)


def bootstrapping(connection: Connection) -> bool:
    """Whether the one admin there is may appoint alone: the first one, for a while, and never after a second one."""
    given = appointments.c.role == "admin"
    ever = select(appointments.c.person, appointments.c.ended_at).where(given, appointments.c.accepted_by.is_not(None))
    recorded = connection.execute(ever).all()
    present = select(grants.c.person, known.c.created_at).join(known, known.c.name == grants.c.person)
    standing = connection.execute(present.where(grants.c.role == "admin")).all()
    if len({row.person for row in (*recorded, *standing)}) != 1:
        return False
    moments = [row.ended_at for row in recorded if row.ended_at] or [row.created_at for row in standing]
    first, moment = min(moments), now(connection)
    return moment - first < BOOTSTRAP and not is_ahead(first, moment)


def _propose(
    connection: Connection,
    person: Person,
    actor: Actor,
    reason: str,
    *,
    role: str | None,
    site: str | None,
    subject: str | None,
) -> Appointment | None:
    """The proposal; None where one person was enough and it is done."""
    alone = "operator" if actor.how in OPERATOR else "bootstrap" if bootstrapping(connection) else None
    if alone is None and is_blank(reason):
        raise AppointmentRefused("another admin has to accept this, so it needs a reason; give it with --reason")
    values = {
        "person": person.name,
        "role": role,
        "site": site,
        "subject": subject,
        "proposed_by": actor.name,
        "proposed_at": now(connection),
        "reason": reason or f"appointed alone: {alone}",
        "alone": alone,
    }
    identity = connection.execute(insert(appointments).values(**values).returning(appointments.c.id)).scalar_one()
    made = get(connection, identity)
    if alone is not None:
        _end(connection, made, actor, made.reason, accepted=True)
        return None
    append(connection, "appointment.proposed", actor, person.name, {"reason": reason, **_told(made)})
    return made


def _end(connection: Connection, made: Appointment, actor: Actor, reason: str, *, accepted: bool) -> Appointment:
    mine = (appointments.c.id == made.id) & appointments.c.ended_at.is_(None)
    values = {"accepted_by": actor.name if accepted else None, "ended_at": now(connection)}
    connection.execute(update(appointments).where(mine).values(**values))
    details = {"reason": reason, "proposed_by": made.proposed_by, **_told(made)}
    append(connection, f"appointment.{'accepted' if accepted else 'refused'}", actor, made.person, details)
    if accepted and made.role is not None and made.site is not None:
        people.grant(connection, made.person, made.role, made.site, actor=actor, more=_marks(made))
    elif accepted and made.subject is not None:
        people.check_subject(connection, made.subject)
        people.set_subject(connection, made.person, made.subject, actor=actor, more=_marks(made))
    return get(connection, made.id)


def _told(made: Appointment) -> dict[str, Json]:
    return {"role": made.role, "site": made.site, "subject": made.subject, **_marks(made)}


def _marks(made: Appointment) -> Mapping[str, Json]:
    """What the log says of how it came about."""
    return {"appointment": made.id, "alone": made.alone}
