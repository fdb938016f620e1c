"""Signed statements of trials: a gateway takes part in a trial only with one, checked against the public key it knows.

Made from the log entry of the trial's start, like those of promotions, by the process that has the key.
"""

from sqlalchemy import Connection, update

from components.audit import keyring, log, statement
from components.audit.decisions import ADVICE
from components.audit.keys import SigningKey
from components.audit.log import Entry, LogDamaged
from components.names import same_person
from components.promotion import trial_rows
from components.promotion.trial_end import over
from components.promotion.trial_rows import CANARY, UNDER_WAY, Trial
from components.storage.database import Database
from components.storage.objects import Json, ObjectStore
from components.storage.tables import trials


def due(connection: Connection, assistant: str, key: str | None) -> list[Trial]:
    """Trials under way without a statement, or with one by an older key than `key` (None: any will do)."""
    return [
        trial
        for trial in trial_rows.every(connection, assistant, states=(UNDER_WAY,))
        if over(connection, trial) is None and (trial.statement is None or (key is not None and trial.signed_by != key))
    ]


def sign_owed(db: Database, store: ObjectStore, key: SigningKey, assistant: str) -> list[Trial]:
    """Make every missing statement; may be repeated, and run by several processes at once.

    Raises:
        LogDamaged: the log does not say that such a trial was started, or that somebody else approved a canary.
    """
    with db.read() as connection:
        unsigned = due(connection, assistant, key.id)
        entries = [started(connection, trial) for trial in unsigned]
        records = keyring.records(connection)
    for trial, entry in zip(unsigned, entries, strict=True):
        number = int(entry.details["number"])
        content = statement.payload(assistant, number, trial.candidate, _predicate(entry), statement.TRIAL_TYPE)
        digest = store.put(statement.sign(key, content, records))
        with db.begin() as connection:
            mine = (trials.c.id == trial.id) & (trials.c.state == UNDER_WAY)
            connection.execute(update(trials).where(mine).values(statement=digest, signed_by=key.id))
    return unsigned


def started(connection: Connection, trial: Trial) -> Entry:
    """The log entry that started a trial, which says the same as its row.

    Raises:
        LogDamaged: there is none, it says something else, or nobody but the asker approved a canary.
    """
    entry = None if trial.entry is None else log.at(connection, trial.entry)
    facts = {
        "assistant": trial.assistant,
        "trial": trial.id,
        "kind": trial.kind,
        "share": trial.share,
        "evidence": trial.evidence,
        "champion": trial.champion,
        "epoch": trial.epoch,
        "asked_by": trial.asked_by,
    }
    if (
        entry is None
        or (entry.action, entry.subject) != ("trial.started", trial.candidate)
        or {name: entry.details.get(name) for name in facts} != facts
        or (trial.kind == CANARY and not _approved(connection, trial, entry))
    ):
        raise LogDamaged(f"the log has no entry for the start of trial {trial.id}; {ADVICE}")
    return entry


def _approved(connection: Connection, trial: Trial, entry: Entry) -> bool:
    """True if the log says that somebody else approved the canary, before its start."""
    index = entry.details.get("approval")
    yes = log.at(connection, index) if isinstance(index, int) and index < entry.index else None
    return (
        yes is not None
        and (yes.action, yes.subject, yes.details.get("trial")) == ("trial.approved", trial.candidate, trial.id)
        and yes.details.get("evidence") == entry.details.get("evidence")
        and not same_person(yes.actor.name, trial.asked_by)
    )


def _predicate(entry: Entry) -> dict[str, Json]:
    names = ("assistant", "trial", "kind", "share", "number", "champion", "epoch", "evidence", "reason", "asked_by")
    return {
        **{name: entry.details[name] for name in names},
        "at": entry.at,
        "by": {"name": entry.actor.name, "assured": entry.actor.assured, "how": entry.actor.how},
        "log": {"entry": entry.index, "hash": entry.hash, "root": entry.root},
    }
