"""Trials of candidates on the traffic of gateways: start, approve, count, stop, and what gateways are told.

A shadow's answers are never returned, so every pending candidate may have one. A canary answers callers: the gate has
to let the candidate pass, and a person who may decide at every site whose tasks change has to approve the trial, who
neither asked for it nor brought the candidate's task in. A trial stops by a person, by a rule, by time, or because its
candidate or the champion was decided; gateways hear of it at their next look.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, func, insert, select, update

from components.audit.decisions import need_decision
from components.audit.log import SYSTEM, Actor, append
from components.errors import LciaError
from components.identity import tokens
from components.names import same_person
from components.promotion import approvals, candidates, champion, judging, train, trial_rows
from components.promotion.candidates import Candidate
from components.promotion.policy import standing
from components.promotion.quorum import need_entitled
from components.promotion.reasons import need_reason
from components.promotion.replicas import ReportRefused
from components.promotion.trial_counts import (
    MOST_CHANGED,
    TrialCounts,
    TrialReport,
    fresh_tests,
    need_kind,
    read_report,
    stopping,
    tests_after,
)
from components.promotion.trial_end import details_of, end, over, write
from components.promotion.trial_rows import CANARY, ENDED, OPEN, SHADOW, UNDER_WAY, WAITING, Trial
from components.settings import PolicySettings
from components.settings.gateway import TrialSettings
from components.storage.database import Database, now
from components.storage.objects import Json, ObjectCorrupt, ObjectMissing, ObjectStore
from components.storage.tables import trial_answers, trial_counts, trials

MOST_REPLICAS = 1000
"""Gateways whose counts one trial keeps."""


class TrialRefused(LciaError):
    """A trial that can't begin, or not like this."""


class TrialNeedsOthers(LciaError):
    """A canary is approved by somebody who did not ask for it."""


def start(
    db: Database,
    store: ObjectStore,
    *,
    assistant: str,
    version: str | int,
    kind: str,
    share: float,
    actor: Actor,
    reason: str,
    policy: PolicySettings,
    rules: TrialSettings,
) -> Trial:
    """Begin a shadow, or ask for a canary, which then waits for its approval. The rules stay those of this moment.

    Raises:
        TrialRefused: the share is out of bounds, another trial is in the way, or there is no champion to compare with.
        NotPending, GateRefused, CandidateUnknown, ReasonMissing, ChampionUnexplained.
    """
    need_reason(reason)
    _need_share(kind, share, rules)
    _judge(db, store, assistant, version, kind, policy)
    with db.begin() as connection:
        candidate = candidates.get(connection, assistant, version)
        present = _need_fit(connection, store, candidate, kind, policy)
        _need_room(connection, candidate, kind)
        moment = now(connection)
        values = {
            "assistant": assistant,
            "candidate": candidate.digest,
            "evidence": candidate.evidence,
            "champion": present.version,
            "epoch": present.epoch,
            "kind": kind,
            "share": share,
            "state": WAITING,
            "rules": rules.model_dump(mode="json"),
            "tests": fresh_tests(kind, rules),
            "asked_by": actor.name,
            "asked_at": moment,
            "reason": reason,
        }
        if kind == SHADOW:
            values |= {"state": UNDER_WAY, "started_at": moment}
        number = connection.execute(insert(trials).values(**values).returning(trials.c.id)).scalar_one()
        trial = trial_rows.get(connection, assistant, number)
        if kind == SHADOW:
            return _started(connection, trial, candidate, actor, None)
        append(connection, "trial.requested", actor, candidate.digest, details_of(trial, candidate))
        return trial


def approve(
    db: Database,
    store: ObjectStore,
    *,
    assistant: str,
    number: int,
    actor: Actor,
    reason: str,
    policy: PolicySettings,
) -> Trial:
    """Approve a canary, which begins at once; approving one that is under way does nothing.

    Raises:
        TrialRefused: it ended, needs no approval, or another trial is under way.
        TrialNeedsOthers, FourEyesRefused, NotEntitled: the person can't approve it.
        NotPending, GateRefused, EvidenceVoid, TrialUnknown, ReasonMissing, ChampionUnexplained.
    """
    need_reason(reason)
    with db.read() as connection:
        first_read = trial_rows.get(connection, assistant, number)
        candidate = candidates.get(connection, assistant, first_read.candidate)
        records = trial_rows.records(connection, candidate.digest)
    if first_read.state == UNDER_WAY and first_read.kind == CANARY:
        return first_read
    reading = approvals.check_evidence(store, candidate, records)
    _judge(db, store, assistant, candidate.digest, CANARY, policy)
    with db.begin() as connection:
        trial = trial_rows.get(connection, assistant, number)
        if trial.state != WAITING:
            raise TrialRefused(f"trial {number} is {trial.state}, expected one that waits; `lcia trial` lists them")
        candidate = candidates.get(connection, assistant, trial.candidate)
        present = _need_fit(connection, store, candidate, trial.kind, policy)
        if (present.epoch, candidate.evidence, trial.evidence) != (trial.epoch, reading.digest, reading.digest):
            raise TrialRefused(
                f"the champion or the evidence of version {candidate.number} changed since trial {number} was asked "
                "for; ask for a new one: `lcia trial start`"
            )
        _need_none_under_way(connection, assistant)
        approvals.need_other_eyes(connection, candidate, actor.name, standing(connection, assistant, policy).approval)
        _need_other_than(connection, trial, actor)
        need_entitled(connection, candidate, actor, everywhere=True)
        details = {**details_of(trial, candidate), "evidence": candidate.evidence, "reason": reason}
        entry = append(connection, "trial.approved", actor, candidate.digest, details)
        values = {"state": UNDER_WAY, "approved_by": actor.name, "approval": reason, "started_at": now(connection)}
        return _started(connection, write(connection, trial, values), candidate, actor, entry.index)


def stop(
    db: Database, store: ObjectStore, *, assistant: str, number: int, actor: Actor, reason: str, keep_days: float
) -> Trial:
    """End a trial; gateways hear of it at their next look. Stopping an ended one does nothing.

    `keep_days`: days that changed answers are kept.

    Raises:
        TrialUnknown, ReasonMissing.
    """
    need_reason(reason)
    with db.begin() as connection:
        trial = trial_rows.get(connection, assistant, number)
        return trial if trial.state == ENDED else end(connection, store, trial, "person", reason, actor, keep_days)


def record(
    db: Database,
    store: ObjectStore,
    *,
    assistant: str,
    replica: str,
    report: Mapping[str, Json],
    keep: bool,
    keep_days: float,
) -> Trial:
    """Take a gateway's report; if a rule has enough evidence now, the trial ends with it.

    `keep`: changed answers are kept, for `keep_days`; else they are dropped. Reports on a trial that ended are dropped.

    Raises:
        ReportRefused: the counts are none that an honest gateway sends, or the trial never began; nothing was changed.
        TrialUnknown.
    """
    content = read_report(report)
    with db.begin() as connection:
        trial = trial_rows.get(connection, assistant, content.id)
        if trial.state == ENDED:
            return trial
        if trial.state == WAITING:
            raise ReportRefused(f"trial {trial.id} waits for its approval; expected no counts of it")
        need_kind(content, trial)
        tests = tests_after(trial, _batch(connection, trial, replica, content.total))
        trial = write(connection, trial, {"tests": {rule: test.to_json() for rule, test in tests.items()}})
        if keep:
            _keep_answers(connection, trial, content)
        rule = stopping(trial, tests)
        if rule is not None:
            why = f"the rule {rule} stopped it: e-value {tests[rule].e:.3g}"
            return end(connection, store, trial, rule, why, SYSTEM, keep_days)
        due = over(connection, trial)
        return trial if due is None else end(connection, store, trial, *due, SYSTEM, keep_days)


def under_way(connection: Connection, store: ObjectStore, assistant: str) -> dict[str, Json] | None:
    """The trial that gateways take part in, as operation `serving` tells them; None if there is none now.

    `statement` is None until it is signed, and a gateway begins no trial without one.
    """
    for trial in trial_rows.every(connection, assistant, states=(UNDER_WAY,)):
        if over(connection, trial) is None:
            return {
                "id": trial.id,
                "number": candidates.get(connection, assistant, trial.candidate).number,
                "digest": trial.candidate,
                "kind": trial.kind,
                "share": trial.share,
                "slow_seconds": trial.rules["slow_seconds"],
                "statement": _signed(store, trial),
            }
    return None


def _signed(store: ObjectStore, trial: Trial) -> str | None:
    """The statement file; None if there is none that can be read, which must not keep gateways from the champion."""
    if trial.statement is None:
        return None
    try:
        return store.get(trial.statement).decode("utf-8")
    except (ObjectMissing, ObjectCorrupt):
        return None


def _judge(
    db: Database, store: ObjectStore, assistant: str, version: str | int, kind: str, policy: PolicySettings
) -> None:
    """Have the gate's judgement of a canary remembered: it may take seconds, not while others wait to write."""
    if kind == CANARY:
        with db.read() as connection:
            rules = standing(connection, assistant, policy)
            candidate = candidates.get(connection, assistant, version)
        judging.present(store, candidate, rules.gate)


def _need_share(kind: str, share: float, rules: TrialSettings) -> None:
    most = 1.0 if kind == SHADOW else rules.most_canary
    if kind not in trial_rows.RULES or not 0 < share <= most:
        raise TrialRefused(
            f"a {kind} of {share:g} is refused; expected a shadow of at most 1, or a canary of at most "
            f"{rules.most_canary:g} (gateway.trial.most_canary), and more than 0"
        )


def _need_fit(
    connection: Connection, store: ObjectStore, candidate: Candidate, kind: str, policy: PolicySettings
) -> champion.Champion:
    """Check that a candidate can be tried now; returns the champion that it is compared with."""
    if candidate.state != "pending":
        raise candidates.NotPending(
            f"version {candidate.number} is {candidate.state} ({candidate.reason}), expected pending: a trial is "
            "about a version that waits for people; `lcia status` lists them"
        )
    need_decision(connection, candidate.assistant)
    present, base = champion.current(connection, candidate.assistant), train.undecided_base(connection, candidate)
    if present is None or candidate.parent != present.version:
        undecided_base = f"it was made on version {base.number}, which waits for people" if base else ""
        why = "there is no champion yet" if present is None else undecided_base or "it was made on another champion"
        raise TrialRefused(
            f"version {candidate.number} can't be compared with the champion: {why}; approve that one first, or "
            "`lcia retry` its task on the present champion"
        )
    if kind == CANARY:
        rules = standing(connection, candidate.assistant, policy)
        approvals.check_gate(candidate, judging.present(store, candidate, rules.gate), rules.gate)
    return present


def _need_room(connection: Connection, candidate: Candidate, kind: str) -> None:
    """Refuse a second shadow, and a second request for a canary of one candidate."""
    if kind == SHADOW:
        _need_none_under_way(connection, candidate.assistant)
    for trial in trial_rows.every(connection, candidate.assistant, candidate.digest, OPEN):
        if trial.kind == kind:
            raise TrialRefused(
                f"version {candidate.number} has trial {trial.id} already, a {kind} that is {_words(trial)}; "
                f"`lcia trial stop {trial.id}` ends it"
            )


def _need_none_under_way(connection: Connection, assistant: str) -> None:
    for trial in trial_rows.every(connection, assistant, states=(UNDER_WAY,)):
        raise TrialRefused(
            f"trial {trial.id} is under way, and an assistant has one at a time; `lcia trial stop {trial.id}` ends it"
        )


def _need_other_than(connection: Connection, trial: Trial, actor: Actor) -> None:
    """Refuse the approval of somebody who asked for the trial, or may have done it with a token."""
    names = [trial.asked_by, *tokens.makers(connection, {trial.asked_by})]
    if any(same_person(actor.name, name) for name in names):
        raise TrialNeedsOthers(
            f"{actor.name} asked for trial {trial.id}, or made a token of {trial.asked_by}, who did; somebody else "
            "has to approve it"
        )


def _words(trial: Trial) -> str:
    return "under way" if trial.state == UNDER_WAY else "waiting for approval"


def _started(connection: Connection, trial: Trial, candidate: Candidate, actor: Actor, approval: int | None) -> Trial:
    """Enter the start, which the statement is about; `approval`: index of the entry of a canary's approval."""
    details = {
        **details_of(trial, candidate),
        "champion": trial.champion,
        "epoch": trial.epoch,
        "evidence": trial.evidence,
        "asked_by": trial.asked_by,
        "approval": approval,
        "rules": trial.rules,
    }
    entry = append(connection, "trial.started", actor, candidate.digest, details)
    return write(connection, trial, {"entry": entry.index})


def _batch(connection: Connection, trial: Trial, replica: str, after: TrialCounts) -> TrialCounts:
    """Keep a gateway's counts; returns how they grew."""
    mine = (trial_counts.c.trial == trial.id) & (trial_counts.c.replica == replica)
    stored = connection.execute(select(trial_counts.c.counts).where(mine)).scalar_one_or_none()
    moment, values = now(connection), after.model_dump(mode="json")
    if stored is not None:
        connection.execute(update(trial_counts).where(mine).values(counts=values, at=moment))
        return after.minus(TrialCounts.model_validate(stored))
    count = select(func.count()).select_from(trial_counts).where(trial_counts.c.trial == trial.id)
    if connection.execute(count).scalar_one() >= MOST_REPLICAS:
        raise ReportRefused(f"trial {trial.id} has reports of {MOST_REPLICAS} gateways already; expected fewer")
    connection.execute(insert(trial_counts).values(trial=trial.id, replica=replica, counts=values, at=moment))
    return after


def _keep_answers(connection: Connection, trial: Trial, report: TrialReport) -> None:
    mine = select(trial_answers.c.id).where(trial_answers.c.trial == trial.id)
    stored, moment = set(connection.execute(mine).scalars()), now(connection)
    for answer in report.changed:
        if answer.id not in stored and len(stored) < MOST_CHANGED:
            stored.add(answer.id)
            connection.execute(insert(trial_answers).values(trial=trial.id, at=moment, **answer.model_dump()))
