"""Proofs of what the service says: signed statements about decisions and trials, under the key that is pinned here."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from components.audit import statement
from components.audit.keys import read_public_key
from components.audit.statement import StatementRefused
from components.settings import Settings

START_ANEW = "Then end the gateway, delete its folder gateway.cache and start it again"


def need_decision(decision: Mapping[str, Any] | None, last: int) -> Mapping[str, Any] | None:
    """A decision, or None if none was made yet; `last` is the newest epoch that this gateway has seen.

    Raises:
        StatementRefused: the service knows of no decision, and this gateway has seen some.
    """
    if decision is None and last:
        raise StatementRefused(
            f"the service says that nothing was decided yet, and this gateway has seen epoch {last}: decisions are "
            f"never undone. Was the service set up anew? {START_ANEW}"
        )
    return decision


def epoch_of(settings: Settings, decision: Mapping[str, Any], assistant: str, last: int) -> int:
    """Epoch of a decision whose statement holds; `last` is the newest that this gateway has seen.

    Raises:
        StatementRefused: there is none, it does not hold, or an older decision is sent again.
        KeyUnusable: the pinned key can't be read.
    """
    number, digest, text = decision["number"], decision["digest"], decision["statement"]
    if not text:
        raise StatementRefused(
            f"version {number} was decided and has no signed statement yet: {decision.get('problem') or 'unsigned'}"
        )
    key = read_public_key(Path(settings.audit.public_key))
    predicate = statement.read(text.encode(), key, digest).predicate
    epoch = predicate.get("epoch")
    if predicate.get("assistant") != assistant or assistant != settings.assistant:
        raise StatementRefused(
            f"the service decides about assistant {assistant!r}, the statement of version {number} is about "
            f"{predicate.get('assistant')!r}, and this gateway serves {settings.assistant!r}"
        )
    if not isinstance(epoch, int) or epoch != decision["epoch"] or epoch < last:
        raise StatementRefused(
            f"the statement of version {number} is of epoch {epoch}, expected {decision['epoch']}, and none before "
            f"{last}: an older decision was sent again. Was the service restored from a backup? {START_ANEW}"
        )
    return epoch


def need_trial(settings: Settings, trial: Mapping[str, Any], epoch: int) -> None:
    """Refuse a trial whose statement does not hold, or no more: it was begun against the decision of `epoch`.

    Raises:
        StatementRefused, KeyUnusable: see `epoch_of`.
    """
    number = trial["id"]
    if not trial["statement"]:
        raise StatementRefused(f"trial {number} has no signed statement yet; it begins here once it has one")
    key = read_public_key(Path(settings.audit.public_key))
    predicate = statement.read_trial(trial["statement"].encode(), key, trial["digest"]).predicate
    facts = [predicate.get(name) for name in ("assistant", "trial", "kind", "share")]
    if facts != [settings.assistant, number, trial["kind"], trial["share"]]:
        raise StatementRefused(f"the statement of trial {number} is about another trial or share: {facts}")
    if predicate.get("epoch") != epoch:
        raise StatementRefused(
            f"trial {number} was begun against the decision of epoch {predicate.get('epoch')}, and epoch {epoch} is "
            "served: it is over; start another one"
        )
    hours = settings.gateway.trial.longest_hours
    if datetime.now(UTC) > datetime.fromisoformat(str(predicate.get("at"))) + timedelta(hours=hours):
        raise StatementRefused(
            f"trial {number} began at {str(predicate.get('at'))[:16]}, more than {hours:g} hours ago "
            "(gateway.trial.longest_hours of this gateway): it is over; stop it, and start another one"
        )
