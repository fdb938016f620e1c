"""Ends of trials: by time or a decision, and the record that an ended trial leaves to its candidate's evidence.

Nobody who decides has to end a trial: whoever reads one asks `over`, so that gateways hear at once, and the service
writes the end soon after. Only its account may.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from components.audit.log import SYSTEM, Actor, append
from components.promotion import candidates, champion, trial_rows
from components.promotion.candidates import Candidate
from components.promotion.trial_counts import TrialCounts, record_of
from components.promotion.trial_rows import ENDED, OPEN, UNDER_WAY, Trial
from components.storage.database import Database, now
from components.storage.objects import Json, ObjectStore
from components.storage.tables import trial_answers, trial_counts, trials


def total(connection: Connection, trial: Trial) -> tuple[TrialCounts, int]:
    """Counts of all gateways together, and the number of gateways that reported."""
    query = select(trial_counts.c.counts).where(trial_counts.c.trial == trial.id)
    reports = [TrialCounts.model_validate(value) for value in connection.execute(query).scalars()]
    together = TrialCounts()
    for one in reports:
        together = together.plus(one)
    return together, len(reports)


def over(connection: Connection, trial: Trial) -> tuple[str, str] | None:
    """Cause and sentence, if something other than a person or a rule ends the trial now."""
    if trial.state == ENDED:
        return None
    candidate = candidates.get(connection, trial.assistant, trial.candidate)
    if candidate.state != "pending":
        return "candidate", f"version {candidate.number} is {candidate.state}"
    if candidate.evidence != trial.evidence:
        return "candidate", f"version {candidate.number} was made again on other evidence"
    present = champion.current(connection, trial.assistant)
    if present is None or present.epoch != trial.epoch:
        return "champion", "the champion that it was compared with was moved"
    hours = float(trial.rules["longest_hours"])
    if trial.started_at is not None and now(connection) >= trial.started_at + timedelta(hours=hours):
        return "time", f"gateway.trial.longest_hours of {hours:g} have passed"
    return None


def settle(db: Database, store: ObjectStore, assistant: str, keep_days: float) -> list[Trial]:
    """End every trial that is over, and delete changed answers that were kept long enough; returns what ended."""
    with db.read() as connection:
        waiting = [one for one in trial_rows.every(connection, assistant, states=OPEN) if over(connection, one)]
        oldest = connection.execute(select(func.min(trial_answers.c.at))).scalar_one_or_none()
        limit = now(connection) - timedelta(days=keep_days)
    if oldest is not None and oldest < limit:
        with db.begin() as connection:
            connection.execute(delete(trial_answers).where(trial_answers.c.at < limit))
    ended = []
    for one in waiting:
        with db.begin() as connection:
            trial = trial_rows.get(connection, assistant, one.id)
            due = over(connection, trial)
            if due is not None:
                ended.append(end(connection, store, trial, *due, SYSTEM, keep_days))
    return ended


def end(
    connection: Connection, store: ObjectStore, trial: Trial, cause: str, why: str, actor: Actor, keep_days: float
) -> Trial:
    """End a trial in the caller's transaction. If it was under way its record becomes an object."""
    moment = now(connection)
    values: dict[str, Any] = {"state": ENDED, "cause": cause, "why": why, "ended_by": actor.name, "ended_at": moment}
    if trial.state == UNDER_WAY:
        values |= _put_answers(connection, store, trial)
        values |= {"answers_until": moment + timedelta(days=keep_days)} if values.get("answers") else {}
        counts, replicas = total(connection, trial)
        values["record"] = store.put_json(record_of(replace(trial, **values), counts, replicas, moment))
    candidate = candidates.get(connection, trial.assistant, trial.candidate)
    details = {**details_of(trial, candidate), "cause": cause, "reason": why, "record": values.get("record")}
    append(connection, "trial.ended", actor, candidate.digest, details)
    return write(connection, trial, values)


def details_of(trial: Trial, candidate: Candidate) -> dict[str, Json]:
    """The part of a log entry that every deed about a trial repeats."""
    return {
        "assistant": trial.assistant,
        "trial": trial.id,
        "number": candidate.number,
        "kind": trial.kind,
        "share": trial.share,
        "reason": trial.reason,
    }


def _put_answers(connection: Connection, store: ObjectStore, trial: Trial) -> dict[str, Json]:
    """Move changed answers from the database into an object; as lines, because texts of strangers name no objects."""
    mine = trial_answers.c.trial == trial.id
    columns = (trial_answers.c.id, trial_answers.c.champion, trial_answers.c.candidate)
    rows = [
        dict(row) for row in connection.execute(select(*columns).where(mine).order_by(trial_answers.c.id)).mappings()
    ]
    connection.execute(delete(trial_answers).where(mine))
    return {"answers": store.put_lines(rows)} if rows else {}


def write(connection: Connection, trial: Trial, values: dict[str, Any]) -> Trial:
    """Change columns of a trial; returns it as it is then."""
    connection.execute(update(trials).where(trials.c.id == trial.id).values(**values))
    return replace(trial, **values)
