"""Promotion by the product itself: of a version that people approved before its turn came, and without a person where
the policy in force allows it.

The process that may move the champion does it: the worker on one machine; on a server with separate accounts the
service, in its rounds, because the worker handles content of packages that may be hostile and has no such right.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from components.audit.log import SYSTEM
from components.errors import LciaError, WaitingForPeople
from components.promotion import approvals, candidates, judging, quorum
from components.promotion.candidates import Candidate
from components.promotion.champion import Promotion, current, promote
from components.promotion.policy import standing
from components.settings import PolicySettings
from components.storage.database import AccountRefused, Database
from components.storage.objects import ObjectStore

APPROVED_EARLIER = "approved before; the version it was made on is the champion now"
"""Reason of a promotion whose turn came after its approvals."""


@dataclass(frozen=True)
class Outcome:
    """Outcome for one candidate."""

    candidate: Candidate
    promotion: Promotion | None
    words: str


def promote_waiting(
    db: Database, promoter: Database, store: ObjectStore, assistant: str, policy: PolicySettings
) -> list[Outcome]:
    """Promote, one after the other, every undecided version that has its approvals or needs no person.

    `db` is read; `promoter` is the same database, opened with the account that moves the champion. `policy` is that of
    the settings, which holds if the server has none.
    """
    outcomes: dict[str, Outcome] = {}
    while True:
        with db.read() as connection:
            rules = standing(connection, assistant, policy)
            now_in_use = current(connection, assistant)
            pending = candidates.versions(connection, assistant, "pending")
        turn = [
            one
            for one in pending
            if one.parent == (now_in_use.version if now_in_use else None) and one.digest not in outcomes
        ]
        if not turn:
            return [outcome for outcome in outcomes.values() if outcome.words]
        for candidate in turn:
            outcome = _by_approvals(promoter, store, candidate, policy, rules)
            if outcome is None and rules.approval.auto:
                outcome = _by_low_risk(promoter, store, candidate, policy, rules)
            outcomes[candidate.digest] = outcome or Outcome(candidate, None, "")
            if outcome and outcome.promotion:
                break  # the others of this turn are set aside, or their turn is over


def _by_approvals(
    promoter: Database, store: ObjectStore, candidate: Candidate, policy: PolicySettings, rules: PolicySettings
) -> Outcome | None:
    """Outcome for a version that has its approvals already; None if it has not."""
    with promoter.read() as connection:
        if not any(_has_quorum(connection, candidate, rules, override=override) for override in (False, True)):
            return None
    try:
        promotion = _promote(promoter, store, candidate, policy, APPROVED_EARLIER)
    except AccountRefused:
        return Outcome(candidate, None, f"version {candidate.number} waits for `lcia serve`, whose account may promote")
    except WaitingForPeople:
        return None
    except LciaError as refusal:
        return Outcome(candidate, None, f"version {candidate.number} is approved and not promoted: {refusal}")
    return Outcome(candidate, promotion, f"version {candidate.number} promoted, epoch {promotion.epoch}")


def _has_quorum(connection: Connection, candidate: Candidate, rules: PolicySettings, *, override: bool) -> bool:
    try:
        quorum.need_quorum(connection, candidate, rules.approval, override=override)
    except WaitingForPeople:
        return False
    return True


def _by_low_risk(
    promoter: Database, store: ObjectStore, candidate: Candidate, policy: PolicySettings, rules: PolicySettings
) -> Outcome:
    try:
        # remembered, unlike the evidence, which is read whole
        judgement = judging.present(store, candidate, rules.gate)
        approvals.check_gate(candidate, judgement, rules.gate)
        approvals.check_low_risk(candidate, judgement, rules.approval)
        promotion = _promote(promoter, store, candidate, policy, "policy.approval.auto", automatic=True)
    except AccountRefused:
        words = f"version {candidate.number} waits for `lcia serve`, whose account may promote it automatically"
        return Outcome(candidate, None, words)
    except LciaError as refusal:
        return Outcome(candidate, None, f"version {candidate.number} not promoted automatically: {refusal}")
    return Outcome(candidate, promotion, f"version {candidate.number} promoted automatically, epoch {promotion.epoch}")


def _promote(
    promoter: Database,
    store: ObjectStore,
    candidate: Candidate,
    policy: PolicySettings,
    reason: str,
    *,
    automatic: bool = False,
) -> Promotion:
    return promote(
        promoter,
        store,
        assistant=candidate.assistant,
        version=candidate.digest,
        actor=SYSTEM,
        policy=policy,
        reason=reason,
        automatic=automatic,
    )
