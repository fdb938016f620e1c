"""Appointments: two admins give somebody the power to decide; in two cases one is enough.

One admin proposes a role that decides or administers, or the account of the identity provider by which somebody with
such a role signs in; another admin accepts it. One is enough in two cases, which the log names: `bootstrap`, for
`BOOTSTRAP` after the first admin's appointment and until there has been a second admin; and `operator`, for a person
who works on the state itself with the database's account, without signing in anywhere.
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
from components.storage.tables import people as people_table
from components.visible import is_blank

POWER = TABLE["decide"] | TABLE["administer"]
"""Roles that only two admins together can give."""
BOOTSTRAP = timedelta(days=7)
"""Time for which the first admin may appoint alone, unless a second admin ends it earlier."""


class AppointmentRefused(LciaError):
    """A proposal that is not possible, or an answer that this person can't give."""


@dataclass(frozen=True)
class Appointment:
    """A role, or an account of the identity provider, proposed for somebody."""

    id: int
    person: str
    role: str | None
    """None if it is about the account alone."""
    site: str | None
    subject: str | None
    """The proposed account; with a role, the account that the person signs in by."""
    proposed_by: str
    proposed_at: datetime
    reason: str
    accepted_by: str | None
    ended_at: datetime | None
    """Time at which it was accepted or refused (then `accepted_by` is None); None while it is open."""
    alone: str | None
    """Reason why one person was enough: `bootstrap` or `operator`; None if it took two."""

    @property
    def state(self) -> str:
        """open, accepted or refused."""
        return "open" if self.ended_at is None else "accepted" if self.accepted_by else "refused"

    @property
    def words(self) -> str:
        """The role or account it gives, in words."""
        account = f", who signs in as {self.subject}" if self.subject else ""
        if self.role is None:
            return f"{self.person} signs in as {self.subject}"
        where = "all sites" if self.site == EVERYWHERE else self.site
        return f"{self.role} at {where} for {self.person}{account}"


def appoint(
    connection: Connection, reference: str, role: str, site: str = EVERYWHERE, *, actor: Actor, reason: str = ""
) -> tuple[Person, Appointment | None]:
    """Give a role or, if it takes two admins, propose it: then the proposal comes back too.

    `reference` is a name or, for somebody who signs in by the identity provider, the account: `issuer|subject`. Such
    people choose their name at the provider, so a name is not enough to tell who they are.

    Raises:
        PersonUnknown; PersonRefused: no such role or site, or a name instead of an account.
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
    appointment = _propose(connection, person, actor, reason, role=role, site=site, subject=person.subject)
    return people.get(connection, person.name), appointment


def connect(
    connection: Connection, name: str, subject: str, *, actor: Actor, reason: str = ""
) -> tuple[Person, Appointment | None]:
    """Let somebody on record sign in by an account of the identity provider, or propose that.

    It takes two admins if the person has the power to decide, or has an account already.

    Raises:
        PersonUnknown; PersonRefused: the account is somebody else's, or is no account.
        AppointmentRefused: a proposal without a reason.
    """
    person = people.get(connection, name)
    if person.subject == subject:
        return person, None
    people.check_subject(connection, subject)
    if person.subject is None and not has_power(person):
        return people.set_subject(connection, person.name, subject, actor=actor), None
    appointment = _propose(connection, person, actor, reason, role=None, site=None, subject=subject)
    return people.get(connection, person.name), appointment


def answer(connection: Connection, identity: int, *, accept: bool, actor: Actor, reason: str) -> Appointment:
    """Accept another admin's proposal, or refuse it; its author may refuse it too.

    Raises:
        AppointmentRefused: it is unknown, ended or the actor's own, its author is no longer an admin, or the person now
            signs in by another account than at the time of the proposal.
    """
    if is_blank(reason):
        raise AppointmentRefused("an answer needs a reason that others can read later; give it with --reason")
    appointment = get(connection, identity)
    if appointment.state != "open":
        raise AppointmentRefused(f"proposal {identity} is {appointment.state} already; propose it again")
    if not accept:
        return _end(connection, appointment, actor, reason, accept=False)
    if same_person(appointment.proposed_by, actor.name):
        raise AppointmentRefused(f"{actor.name} proposed {identity} and can't accept it; another admin has to")
    if actor.how not in OPERATOR and "admin" not in people.roles(connection, appointment.proposed_by, None):
        raise AppointmentRefused(
            f"{appointment.proposed_by}, who proposed {identity}, is no admin any more; propose it again"
        )
    _need_entry(connection, appointment)
    person = people.get(connection, appointment.person)
    if appointment.role is not None and person.subject != appointment.subject:
        raise AppointmentRefused(
            f"{person.name} signs in as {person.subject or 'nobody'}, and as {appointment.subject or 'nobody'} when it "
            "was proposed; propose it again"
        )
    return _end(connection, appointment, actor, reason, accept=True)


def _need_entry(connection: Connection, appointment: Appointment) -> None:
    """Refuse a proposal that differs from its log entry, or has none: somebody wrote it into the database."""
    entries = log.newest(connection, ["appointment.proposed"], appointment.person)
    entry = next((one for one in entries if one.details.get("appointment") == appointment.id), None)
    details = {} if entry is None else {"proposed_by": entry.actor.name, **entry.details}
    if any(details.get(name) != getattr(appointment, name) for name in ("proposed_by", "role", "site", "subject")):
        raise AppointmentRefused(f"proposal {appointment.id} is not what was proposed: {ADVICE}")


def get(connection: Connection, identity: int) -> Appointment:
    """One proposal.

    Raises:
        AppointmentRefused: there is none with this number.
    """
    row = connection.execute(select(appointments).where(appointments.c.id == identity)).mappings().one_or_none()
    if row is None:
        raise AppointmentRefused(f"there is no proposal {identity}; `lcia people` lists them")
    return Appointment(**row)


def waiting(connection: Connection) -> list[Appointment]:
    """Open proposals, oldest first."""
    query = select(appointments).where(appointments.c.ended_at.is_(None)).order_by(appointments.c.id)
    return [Appointment(**row) for row in connection.execute(query).mappings()]


def has_power(person: Person) -> bool:
    """True if somebody decides or administers anywhere."""
    return any(grant.role in POWER for grant in person.grants)


def grants_with(person: Person, *, foreign: bool) -> tuple[Grant, ...]:
    """Roles of a person that count with a token, `foreign` if somebody else made it; none after they were shut out."""
    if person.disabled_at is not None:
        return ()
    return tuple(one for one in person.grants if not (foreign and one.role in POWER))


def bootstrapping(connection: Connection) -> bool:
    """True if the only admin may appoint alone: it is the first one, for a while, and there was never a second."""
    of_admins = appointments.c.role == "admin"
    ever = select(appointments.c.person, appointments.c.ended_at).where(
        of_admins, appointments.c.accepted_by.is_not(None)
    )
    on_record = connection.execute(ever).all()
    present = select(grants.c.person, people_table.c.created_at).join(
        people_table, people_table.c.name == grants.c.person
    )
    present_admins = connection.execute(present.where(grants.c.role == "admin")).all()
    if len({row.person for row in (*on_record, *present_admins)}) != 1:
        return False
    moments = [row.ended_at for row in on_record if row.ended_at] or [row.created_at for row in present_admins]
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
    """Make a proposal; returns None if one person was enough and it is done."""
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
    appointment = get(connection, identity)
    if alone is not None:
        _end(connection, appointment, actor, appointment.reason, accept=True)
        return None
    append(connection, "appointment.proposed", actor, person.name, {"reason": reason, **_details(appointment)})
    return appointment


def _end(connection: Connection, appointment: Appointment, actor: Actor, reason: str, *, accept: bool) -> Appointment:
    mine = (appointments.c.id == appointment.id) & appointments.c.ended_at.is_(None)
    values = {"accepted_by": actor.name if accept else None, "ended_at": now(connection)}
    connection.execute(update(appointments).where(mine).values(**values))
    details = {"reason": reason, "proposed_by": appointment.proposed_by, **_details(appointment)}
    append(connection, f"appointment.{'accepted' if accept else 'refused'}", actor, appointment.person, details)
    if accept and appointment.role is not None and appointment.site is not None:
        people.grant(
            connection, appointment.person, appointment.role, appointment.site, actor=actor, more=_marks(appointment)
        )
    elif accept and appointment.subject is not None:
        people.check_subject(connection, appointment.subject)
        people.set_subject(connection, appointment.person, appointment.subject, actor=actor, more=_marks(appointment))
    return get(connection, appointment.id)


def _details(appointment: Appointment) -> dict[str, Json]:
    return {"role": appointment.role, "site": appointment.site, "subject": appointment.subject, **_marks(appointment)}


def _marks(appointment: Appointment) -> Mapping[str, Json]:
    """Details of the log's entries about its origin."""
    return {"appointment": appointment.id, "alone": appointment.alone}
