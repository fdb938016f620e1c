"""What can be asked of an assistant, by command line and by service alike: one function each, JSON in and out.

An operation says what it needs and whom it is about; who may ask for it is `components.identity.access.TABLE`.
"""

from base64 import b64encode
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from components.audit.log import Actor, append
from components.errors import LciaError
from components.identity import appointments, people, tokens
from components.identity.access import EVERYWHERE, Permission
from components.names import same_person
from components.promotion import candidates, policy, withdrawal
from components.promotion.reasons import need_reason
from components.storage import leases
from components.storage.objects import Json
from components.tasks import queue
from lcia import auditing, changed_rows, comparing, delivery, keeping, listing, syncing, verbs
from lcia.shapes import (
    Answer,
    AppointmentAnswer,
    Approval,
    BrokenLease,
    Decision,
    Gone,
    Grant,
    NewPerson,
    NewToken,
    Nothing,
    OfEntries,
    OfImage,
    OfLines,
    OfNumber,
    OfPerson,
    OfProof,
    OfState,
    OfTasks,
    OfVersion,
    OldToken,
    Params,
    PolicyAnswer,
    PolicyChange,
    Regroup,
    Replacement,
    Retry,
    Revocation,
    Two,
    Withdrawal,
)
from lcia.workplace import Workplace


class ParametersRefused(LciaError):
    """Parameters that do not fit an operation."""


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked."""

    name: str
    permission: Permission
    changes: bool
    """False: it only looks."""
    params: type[Params]
    run: Callable[[Workplace, Actor, Any], Json]
    sites: Callable[[Workplace, Any], Collection[str] | None] = lambda _place, _params: None
    """Whose tasks it is about, `*` for everybody's; None where it is about no site in particular."""
    everywhere: bool = False
    """The permission is needed at all of the sites; else one of them is enough."""
    about: Callable[[Workplace, Any], str | None] | None = None
    """Somebody who may do it, being the person it is about."""

    def checked(self, params: Mapping[str, Any]) -> Params:
        """The parameters in their shape.

        Raises:
            ParametersRefused: they do not fit it.
        """
        try:
            return self.params.model_validate(dict(params))
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise ParametersRefused("; ".join(faults)) from error

    @property
    def summary(self) -> str:
        """The first line of what it does."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


def _of_version(place: Workplace, params: Any) -> frozenset[str]:  # noqa: ANN401 - any params with a version
    """All whose tasks change if it becomes the champion."""
    with place.db.read() as connection:
        return candidates.sites(connection, candidates.get(connection, place.assistant, params.version))


def _of_item(place: Workplace, params: Any) -> list[str]:  # noqa: ANN401 - any params with an item
    with place.db.read() as connection:
        return [queue.item(connection, params.item).owner]


def _of_replaced(place: Workplace, params: Any) -> list[str]:  # noqa: ANN401 - any params with old and new
    with place.db.read() as connection:
        return [withdrawal.find(connection, place.assistant, params.old).owner]


def _of_task(place: Workplace, params: Any) -> list[str]:  # noqa: ANN401 - any params with a task
    with place.db.read() as connection:
        return [withdrawal.find(connection, place.assistant, params.task).owner]


def _of_all(_: Workplace, __: Any) -> list[str]:  # noqa: ANN401 - any params
    """What is everybody's."""
    return [EVERYWHERE]


def _of_role(_: Workplace, params: Grant) -> list[str]:
    return [params.site]


def _of_answered(place: Workplace, params: AppointmentAnswer) -> list[str]:
    with place.db.read() as connection:
        return [appointments.get(connection, params.proposal).site or EVERYWHERE]


def _whose(_: Workplace, params: Any) -> str | None:  # noqa: ANN401 - any params with a person
    found: str | None = params.person
    return found


def _whose_token(place: Workplace, params: OldToken) -> str | None:
    with place.db.read() as connection:
        return next((one.person for one in tokens.listed(connection) if one.id == params.token), None)


def _status(place: Workplace, _: Actor, __: Nothing) -> Json:
    """Champion, queue, candidates and log."""
    return verbs.status(place)


def _tasks(place: Workplace, _: Actor, params: OfTasks) -> Json:
    """Every task known: where it stands, what it scores, what may be kept of it."""
    return {"tasks": listing.tasks(place, params.state, params.owner)}


def _candidates(place: Workplace, _: Actor, params: OfState) -> Json:
    """Every version ever proposed, with who approved it."""
    return {"candidates": listing.versions(place, params.state)}


def _lineage(place: Workplace, _: Actor, params: OfVersion) -> Json:
    """A version's ancestors with promotions and rollbacks."""
    found = listing.lineage(place, params.version)
    if found is None:
        raise verbs.NothingToShow("there is no champion yet; name a candidate: `lcia lineage N`")
    return found


def _matrix(place: Workplace, _: Actor, params: OfVersion) -> Json:
    """The accuracy matrix along the ancestors of a version."""
    return verbs.matrix(place, params.version)


def _show(place: Workplace, _: Actor, params: OfVersion) -> Json:
    """Everything a decision about a version rests on."""
    return verbs.show(place, params.version)


def _diff(place: Workplace, _: Actor, params: Two) -> Json:
    """Two versions side by side."""
    return comparing.diff(place, params.before, params.after)


def _flips(place: Workplace, actor: Actor, params: OfNumber) -> Json:
    """The test rows of prior tasks that a version changed; the look is logged."""
    candidate, seen = changed_rows.look(place, params.version, actor)
    return {
        "version": candidate.number,
        "flips": [vars(flip) for flip in seen.rows],
        "held_back": seen.held_back,
        "other_sites": seen.other_sites,
    }


def _image(place: Workplace, actor: Actor, params: OfImage) -> Json:
    """An image of one of these rows, as a PNG file in base64."""
    candidate, found = changed_rows.image(place, params.version, actor, params.task, params.image)
    return {
        "version": candidate.number,
        "task": params.task,
        "image": found.digest,
        "content": b64encode(found.png()).decode(),
    }


def _entries(place: Workplace, _: Actor, params: OfEntries) -> Json:
    """Entries of the log."""
    filters = params.model_dump(mode="python")
    return {"entries": listing.entries(place, **filters)}


def _verify(place: Workplace, _: Actor, __: Nothing) -> Json:
    """Check every byte of the live log."""
    return auditing.verify(place).to_json()


def _head(place: Workplace, _: Actor, __: Nothing) -> Json:
    """The log's head, signed: worth keeping where the database's administrators can't reach."""
    return auditing.head(place)


def _lines(place: Workplace, _: Actor, params: OfLines) -> Json:
    """Lines of the log as `lcia audit export` writes them."""
    return {"lines": auditing.lines(place, params.start, params.limit)}


def _prove(place: Workplace, _: Actor, params: OfProof) -> Json:
    """Proof of a promotion, of any entry, or that the log begins with an earlier head."""
    return auditing.prove(place, params.version, params.entry, params.since)


def _statement(place: Workplace, _: Actor, params: OfVersion) -> Json:
    """The signed in-toto statement of a version's promotion."""
    return auditing.signed_statement(place, params.version)


def _keys(place: Workplace, _: Actor, __: Nothing) -> Json:
    """Every key that signed the log."""
    return auditing.keys(place)


def _policy(place: Workplace, _: Actor, __: Nothing) -> Json:
    """The policy in force, and what was proposed."""
    with place.db.read() as connection:
        standing = policy.in_force(connection, place.assistant)
        found = policy.listed(connection, place.assistant)
    return {
        "server": standing is not None,
        "number": standing.id if standing else None,
        "policy": place.settings.policy.model_dump(mode="json"),
        "proposals": [_proposal(each) for each in found],
    }


def _people(place: Workplace, _: Actor, __: Nothing) -> Json:
    """Everybody who may sign in, their roles, and what waits for another admin."""
    with place.db.read() as connection:
        return {
            "people": [_person(person) for person in people.listed(connection)],
            "proposals": [_appointment(one) for one in appointments.waiting(connection)],
        }


def _tokens(place: Workplace, _: Actor, params: OfPerson) -> Json:
    """Tokens, without their secrets; of one person, or all."""
    with place.db.read() as connection:
        found = tokens.listed(connection)
    wanted = [one for one in found if params.person is None or same_person(one.person, params.person)]
    return {"tokens": [_token(token) for token in wanted]}


def _approve(place: Workplace, actor: Actor, params: Approval) -> Json:
    """Say yes to a candidate; with the last yes that policy asks for it becomes the champion."""
    candidate, made = verbs.approve(
        place, params.version, actor, params.reason, override=params.override, evidence=params.evidence
    )
    epoch, known = (made.epoch, made.known) if made else (None, False)
    told = delivery.standing(place, candidate.digest)
    code = told["exit_code"] if made else 3
    return {**_decided(candidate), "epoch": epoch, "known": known, **told, "exit_code": code}


def _reject(place: Workplace, actor: Actor, params: Decision) -> Json:
    """Say no to a candidate; it ends."""
    candidate = verbs.reject(place, params.version, actor, params.reason)
    return {**_decided(candidate), **delivery.standing(place, candidate.digest)}


def _revoke(place: Workplace, actor: Actor, params: Revocation) -> Json:
    """Take back one's own yes, or somebody else's, before the promotion."""
    candidate, taken = verbs.revoke(place, params.version, actor, params.reason, params.person)
    return {**_decided(candidate), "person": taken.person, "revoked": True}


def _rollback(place: Workplace, actor: Actor, params: Decision) -> Json:
    """Go back to a version that the champion was made on."""
    made = verbs.rollback(place, params.version, actor, params.reason)
    with place.db.read() as connection:
        number = candidates.get(connection, place.assistant, made.version).number
    return {**made.to_json(), "number": number, **delivery.standing(place, made.version)}


def _supersede(place: Workplace, actor: Actor, params: Replacement) -> Json:
    """Declare that a learnt task replaces an earlier one."""
    return verbs.supersede(place, params.old, params.new, actor, params.reason).to_json()


def _retry(place: Workplace, actor: Actor, params: Retry) -> Json:
    """Put a task that failed, was refused or rejected back into the queue."""
    with place.db.begin() as connection:
        if params.force:
            why, answers = "to be learnt although it is known", {"forced": True}
            found = queue.answer(connection, params.item, "nothing_to_learn", answers, actor=actor, reason=why)
        else:
            found = queue.move(connection, None, params.item, "submitted", "tried again", actor=actor)
    return found.to_json()


def _release(place: Workplace, actor: Actor, params: Answer) -> Json:
    """Let a task go on that is held: unlike everything seen, or to replace another and of a sender unknown."""
    with place.db.begin() as connection:
        assessed = "assessment" in queue.item(connection, params.item).reports
        answers: dict[str, Json] = {"released": True} if assessed else {}
        found = queue.answer(connection, params.item, "held", answers, actor=actor, reason=params.reason)
    return found.to_json()


def _regroup(place: Workplace, actor: Actor, params: Regroup) -> Json:
    """Say which group learns a task that is held between two."""
    verbs.need_group(place, params.item, params.group)
    return _answered(place, actor, params, {"placed": params.group})


def _cancel(place: Workplace, actor: Actor, params: Answer) -> Json:
    """Take a task out of the queue."""
    with place.db.begin() as connection:
        return queue.move(connection, None, params.item, "cancelled", params.reason, actor=actor).to_json()


def _break_lease(place: Workplace, actor: Actor, params: BrokenLease) -> Json:
    """Free a lease whose owner is gone, or with `force` one that hangs; who did it and why is entered in the log."""
    need_reason(params.reason)
    with place.keeper.begin() as connection:
        held = leases.break_lease(connection, params.lease, force=params.force)
        stood: dict[str, Json] = {
            "owner": held.owner,
            "silent_seconds": None if held.silent is None else round(held.silent),
            "lost": held.lost,
        }
        append(connection, "lease.broken", actor, held.name, {**stood, "reason": params.reason, "forced": params.force})
    return {"lease": held.name, **stood, "words": held.words}


def _sync(place: Workplace, actor: Actor, _: Nothing) -> Json:
    """Bring MLflow up to date, and find what was changed there directly."""
    return syncing.sync(place, actor)


def _retention(place: Workplace, _: Actor, __: Nothing) -> Json:
    """What is kept, why, and what a sweep would delete."""
    return keeping.look(place)


def _sweep(place: Workplace, actor: Actor, _: Nothing) -> Json:
    """Delete what may or need not be kept any more."""
    return keeping.clean(place, actor)


def _withdraw(place: Workplace, actor: Actor, params: Withdrawal) -> Json:
    """Erase a task's rows and every text made from them; the log keeps a tombstone."""
    return keeping.withdraw(place, params.task, actor, params.reason)


def _propose(place: Workplace, actor: Actor, params: PolicyChange) -> Json:
    """Ask for a change of the server's policy."""
    with place.db.begin() as connection:
        made = policy.propose(connection, place.assistant, params.changes, actor=actor, reason=params.reason)
    return _proposal(made)


def _answer_policy(place: Workplace, actor: Actor, params: PolicyAnswer) -> Json:
    """Accept or refuse a proposed policy; accepting needs another admin than the one who proposed it."""
    do = policy.accept if params.accept else policy.refuse
    with place.db.begin() as connection:
        return _proposal(do(connection, place.assistant, params.proposal, actor=actor, reason=params.reason))


def _add_person(place: Workplace, actor: Actor, params: NewPerson) -> Json:
    """Record somebody who may sign in, or connect them with an account; roles are granted apart."""
    with place.db.begin() as connection:
        known = people.among(connection, [params.person])
        if known and params.subject is not None:
            reason = params.reason
            found, made = appointments.connect(connection, params.person, params.subject, actor=actor, reason=reason)
        else:
            found, made = people.add(connection, params.person, subject=params.subject, actor=actor), None
    return {**_person(found), "known": bool(known), "proposal": _appointment(made) if made else None}


def _grant(place: Workplace, actor: Actor, params: Grant) -> Json:
    """Give a role at a site, or take it back; roles that decide or administer take two admins."""
    with place.db.begin() as connection:
        made = None
        if params.take_back:
            person = people.find(connection, params.person).name
            found = people.withdraw_grant(connection, person, params.role, params.site, actor=actor)
        else:
            given = (params.person, params.role, params.site)
            found, made = appointments.appoint(connection, *given, actor=actor, reason=params.reason)
    return {**_person(found), "proposal": _appointment(made) if made else None}


def _answer_grant(place: Workplace, actor: Actor, params: AppointmentAnswer) -> Json:
    """Accept or refuse a proposed role or account; accepting needs another admin than the one who proposed it."""
    with place.db.begin() as connection:
        identity, reason = params.proposal, params.reason
        return _appointment(appointments.answer(connection, identity, accept=params.accept, actor=actor, reason=reason))


def _disable(place: Workplace, actor: Actor, params: Gone) -> Json:
    """Shut somebody out; what was decided stands."""
    with place.db.begin() as connection:
        return _person(people.disable(connection, params.person, actor=actor, reason=params.reason))


def _create_token(place: Workplace, actor: Actor, params: NewToken) -> Json:
    """Make a token; its text is in this answer alone."""
    with place.db.begin() as connection:
        lifetime = timedelta(days=params.days)
        made, text = tokens.create(connection, params.person, params.label, lifetime, params.permissions, actor=actor)
    return {**_token(made), "token": text}


def _revoke_token(place: Workplace, actor: Actor, params: OldToken) -> Json:
    """End a token."""
    with place.db.begin() as connection:
        return _token(tokens.revoke(connection, params.token, actor=actor, reason=params.reason))


def _decided(candidate: candidates.Candidate) -> dict[str, Json]:
    return {"version": candidate.number, "digest": candidate.digest, "state": candidate.state}


def _answered(place: Workplace, actor: Actor, params: Answer, answers: Mapping[str, Json]) -> Json:
    with place.db.begin() as connection:
        found = queue.answer(connection, params.item, "held", answers, actor=actor, reason=params.reason)
    return found.to_json()


def _proposal(found: policy.Proposal) -> dict[str, Json]:
    times = {"proposed_at": _text(found.proposed_at), "ended_at": _text(found.ended_at)}
    return {**vars(found), **times, "state": found.state}


def _person(person: people.Person) -> dict[str, Json]:
    return {
        "name": person.name,
        "subject": person.subject,
        "roles": [vars(grant) for grant in person.grants],
        "created_at": _text(person.created_at),
        "disabled_at": _text(person.disabled_at),
    }


def _appointment(one: appointments.Appointment) -> dict[str, Json]:
    times = {"proposed_at": _text(one.proposed_at), "ended_at": _text(one.ended_at)}
    return {**vars(one), **times, "state": one.state, "words": one.words}


def _token(token: tokens.Token) -> dict[str, Json]:
    told = {name: _text(value) if isinstance(value, datetime) else value for name, value in vars(token).items()}
    return {**told, "foreign": token.foreign}


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("status", "look", False, Nothing, _status),
        Operation("tasks", "look", False, OfTasks, _tasks),
        Operation("candidates", "look", False, OfState, _candidates),
        Operation("lineage", "look", False, OfVersion, _lineage),
        Operation("matrix", "look", False, OfVersion, _matrix),
        Operation("show", "look", False, OfVersion, _show),
        Operation("diff", "look", False, Two, _diff),
        Operation("retention", "look", False, Nothing, _retention),
        Operation("flips", "read_rows", False, OfNumber, _flips),
        Operation("image", "read_rows", False, OfImage, _image),
        Operation("entries", "audit", False, OfEntries, _entries),
        Operation("verify", "audit", False, Nothing, _verify),
        Operation("head", "audit", False, Nothing, _head),
        Operation("lines", "audit", False, OfLines, _lines),
        Operation("prove", "audit", False, OfProof, _prove),
        Operation("statement", "look", False, OfVersion, _statement),
        Operation("keys", "look", False, Nothing, _keys),
        Operation("policy", "look", False, Nothing, _policy),
        Operation("people", "administer", False, Nothing, _people),
        Operation("tokens", "administer", False, OfPerson, _tokens, about=_whose),
        Operation("approve", "decide", True, Approval, _approve, _of_version),
        Operation("reject", "decide", True, Decision, _reject, _of_version),
        Operation("revoke", "revoke", True, Revocation, _revoke, _of_version),
        Operation("rollback", "roll_back", True, Decision, _rollback, _of_version, everywhere=True),
        Operation("supersede", "operate", True, Replacement, _supersede, _of_replaced),
        Operation("retry", "operate", True, Retry, _retry, _of_item),
        Operation("release", "operate", True, Answer, _release, _of_item),
        Operation("regroup", "operate", True, Regroup, _regroup, _of_item),
        Operation("cancel", "operate", True, Answer, _cancel, _of_item),
        Operation("break-lease", "operate", True, BrokenLease, _break_lease, _of_all),
        Operation("sync", "operate", True, Nothing, _sync, _of_all),
        Operation("sweep", "operate", True, Nothing, _sweep, _of_all),
        Operation("withdraw", "withdraw", True, Withdrawal, _withdraw, _of_task),
        Operation("propose-policy", "administer", True, PolicyChange, _propose, _of_all),
        Operation("answer-policy", "administer", True, PolicyAnswer, _answer_policy, _of_all),
        Operation("add-person", "administer", True, NewPerson, _add_person, _of_all),
        Operation("grant", "administer", True, Grant, _grant, _of_role),
        Operation("answer-grant", "administer", True, AppointmentAnswer, _answer_grant, _of_answered),
        Operation("disable-person", "administer", True, Gone, _disable, _of_all),
        Operation("create-token", "administer", True, NewToken, _create_token, _of_all, about=_whose),
        Operation("revoke-token", "administer", True, OldToken, _revoke_token, _of_all, about=_whose_token),
    )
}
"""By name; `submit` is apart, for it carries a package."""
