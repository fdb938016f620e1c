"""Trials: a candidate on the traffic of gateways, as a shadow or as a canary."""

import contextlib
from typing import Any

from sqlalchemy import select

from components.audit import log
from components.audit.log import Actor
from components.promotion import candidates, trial_counts, trial_end, trial_rows
from components.promotion import trials as deeds
from components.promotion.trial_rows import ENDED, UNDER_WAY, Trial
from components.registry.outbox import Delivery
from components.storage.database import AccountRefused, now
from components.storage.objects import Json, ObjectMissing
from components.storage.tables import trial_answers
from lcia.instance import Instance
from lcia.operations.flips import is_entered

READ = "trial.read"


def start(instance: Instance, version: str, kind: str, share: float, actor: Actor, reason: str) -> Json:
    """Try a candidate on the traffic of gateways; a canary waits for its approval first."""
    settle(instance)
    trial = deeds.start(
        instance.db,
        instance.store,
        assistant=instance.assistant,
        version=version,
        kind=kind,
        share=share,
        actor=actor,
        reason=reason,
        policy=instance.settings.policy,
        rules=instance.settings.gateway.trial,
    )
    return {**_begun(instance, trial), "exit_code": 0 if trial.state == UNDER_WAY else 3}


def approve(instance: Instance, trial: int, actor: Actor, reason: str) -> Json:
    """Approve a canary, which begins at once."""
    settle(instance)
    approved = deeds.approve(
        instance.db,
        instance.store,
        assistant=instance.assistant,
        number=trial,
        actor=actor,
        reason=reason,
        policy=instance.settings.policy,
    )
    return _begun(instance, approved)


def stop(instance: Instance, trial: int, actor: Actor, reason: str) -> Json:
    """End a trial at once; every caller gets the champion again."""
    ended = deeds.stop(
        instance.db,
        instance.store,
        assistant=instance.assistant,
        number=trial,
        actor=actor,
        reason=reason,
        keep_days=instance.settings.gateway.keep_days,
    )
    return about(instance, ended)


def trials(instance: Instance, version: str | None = None) -> dict[str, Any]:
    """Trials with their counts, and how near each rule is to stopping them; the newest last."""
    with instance.db.read() as connection:
        digest = candidates.get(connection, instance.assistant, version).digest if version is not None else None
        rows = trial_rows.every(connection, instance.assistant, digest)
    return {"trials": [about(instance, one) for one in rows]}


def standing(instance: Instance) -> list[dict[str, Any]]:
    """Trials under way or waiting for approval, in short."""
    names = ("id", "number", "task_name", "kind", "share", "state", "asked_by", "over", "signed", "agreement", "rules")
    with instance.db.read() as connection:
        rows = trial_rows.every(connection, instance.assistant, states=trial_rows.OPEN)
    return [{name: value for name, value in about(instance, one).items() if name in names} for one in rows]


def answers(instance: Instance, trial: int, actor: Actor) -> dict[str, Any]:
    """Requests that the two versions answered differently, with personal data masked; the look is logged."""
    with instance.db.read() as connection:
        row = trial_rows.get(connection, instance.assistant, trial)
        number = candidates.get(connection, instance.assistant, row.candidate).number
    content = _answers(instance, row)
    details: dict[str, Json] = {"trial": row.id, "number": number, "rows": len(content)}
    with instance.db.begin() as connection:
        if not is_entered(connection, READ, row.candidate, actor, details):
            log.append(connection, READ, actor, row.candidate, details)
    return {
        "trial": row.id,
        "number": number,
        "kept_until": row.answers_until.isoformat() if row.answers_until else None,
        "answers": content,
    }


def about(instance: Instance, trial: Trial) -> dict[str, Any]:
    """A trial as people read it; `over` says why gateways no longer hear of one that is not ended yet."""
    with instance.db.read() as connection:
        version = candidates.get(connection, instance.assistant, trial.candidate)
        champion = candidates.get(connection, instance.assistant, trial.champion)
        counts, replicas = trial_end.total(connection, trial)
        due = trial_end.over(connection, trial)
    return {
        **trial.to_json(),
        "rules_at_start": trial.rules,
        "number": version.number,
        "task_name": version.task_name,
        "champion_number": champion.number,
        "over": due[1] if due else None,
        "signed": trial.statement is not None,
        "replicas": replicas,
        "changed": trial.answers is not None or trial.state != ENDED,
        **trial_counts.figures(trial, counts),
    }


def settle(instance: Instance) -> None:
    """End trials that are over, where this process may; the service does it in its rounds."""
    with contextlib.suppress(AccountRefused):
        trial_end.settle(instance.db, instance.store, instance.assistant, instance.settings.gateway.keep_days)


def _begun(instance: Instance, trial: Trial) -> dict[str, Any]:
    """The trial after signing; `problem` says what keeps gateways from beginning it."""
    failures = [] if trial.state != UNDER_WAY else [one for one in instance.sign() if not one.ok]
    with instance.db.read() as connection:
        present = trial_rows.get(connection, instance.assistant, trial.id)
    return {**about(instance, present), "problem": _problem(present, failures)}


def _problem(trial: Trial, failures: list[Delivery]) -> str:
    if trial.state != UNDER_WAY or trial.statement is not None:
        return ""
    why = failures[0].message if failures else "the process that has the key signs it within a minute"
    return f"gateways take part once its statement is signed: {why}"


def _answers(instance: Instance, trial: Trial) -> list[Json]:
    """Changed answers that are kept, of a trial under way or ended."""
    if trial.answers is not None:
        with instance.db.read() as connection:
            expired = trial.answers_until is not None and trial.answers_until <= now(connection)
        try:
            return [] if expired else instance.store.get_lines(trial.answers)
        except ObjectMissing:  # erased by retention
            return []
    columns = (trial_answers.c.id, trial_answers.c.champion, trial_answers.c.candidate)
    query = select(*columns).where(trial_answers.c.trial == trial.id).order_by(trial_answers.c.id)
    with instance.db.read() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
