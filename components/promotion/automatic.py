"""Promotion without a person, where the policy in force allows it.

The process that may move the champion does it: the worker on one machine; on a server with separate accounts the
service, in its rounds, because the worker handles content of packages that may be hostile and has no such right.
"""

from dataclasses import dataclass

from components.audit.log import SYSTEM
from components.errors import LciaError
from components.promotion import approvals, candidates, judging
from components.promotion.candidates import Candidate
from components.promotion.champion import Promotion, promote
from components.promotion.policy import standing
from components.settings import PolicySettings
from components.storage.database import AccountRefused, Database
from components.storage.objects import ObjectStore


@dataclass(frozen=True)
class Outcome:
    """Outcome for one candidate."""

    candidate: Candidate
    promotion: Promotion | None
    words: str


def promote_waiting(
    db: Database, promoter: Database, store: ObjectStore, assistant: str, policy: PolicySettings
) -> list[Outcome]:
    """Promote every pending candidate that needs no person; none if automatic approval is off.

    `db` is read; `promoter` is the same database, opened with the account that moves the champion. `policy` is that of
    the settings, which holds if the server has none.
    """
    with db.read() as connection:
        rules = standing(connection, assistant, policy)
        waiting = candidates.versions(connection, assistant, "pending") if rules.approval.auto else []
    return [_outcome(promoter, store, candidate, policy, rules) for candidate in waiting]


def _outcome(
    promoter: Database, store: ObjectStore, candidate: Candidate, policy: PolicySettings, rules: PolicySettings
) -> Outcome:
    try:
        judgement = judging.present(
            store, candidate, rules.gate
        )  # remembered, unlike the evidence, which is read whole
        approvals.check_gate(candidate, judgement, rules.gate)
        approvals.check_low_risk(candidate, judgement, rules.approval)
        promotion = promote(
            promoter,
            store,
            assistant=candidate.assistant,
            version=candidate.digest,
            actor=SYSTEM,
            policy=policy,
            reason="policy.approval.auto",
            automatic=True,
        )
    except AccountRefused:
        words = f"version {candidate.number} waits for `lcia serve`, whose account may promote it automatically"
        return Outcome(candidate, None, words)
    except LciaError as refusal:
        return Outcome(candidate, None, f"version {candidate.number} not promoted automatically: {refusal}")
    return Outcome(candidate, promotion, f"version {candidate.number} promoted automatically, epoch {promotion.epoch}")
