"""Decisions about versions: approve, reject, revoke, roll back."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace

from components.audit.log import Actor
from components.promotion import approvals, candidates, champion, quorum, train
from components.promotion.automatic import promote_waiting
from components.promotion.champion import NotItsTurn, Promotion
from components.storage.objects import Json
from lcia.instance import Instance
from lcia.operations import delivery, trials


def approve(
    instance: Instance,
    version: str,
    actor: Actor,
    reason: str,
    *,
    override: bool = False,
    evidence: str | None = None,
    trials: str | None = None,
) -> Json:
    """Approve a candidate. It is promoted once it has every approval that policy requires, and its turn has come.

    Versions that were made on it and are approved already follow at once.
    `override` approves against the gate. `evidence` is the digest of what the approver read, `trials` that of the
    records of its ended trials; another one refuses.
    Approving the champion itself changes nothing, but delivers to MLflow what a crash may have left undelivered.
    """
    candidate, now = instance.version(version), instance.champion()
    in_use = candidate is not None and now is not None and candidate.digest == now.digest
    policy = instance.settings.policy
    if not in_use:
        approvals.approve(
            instance.db,
            instance.store,
            assistant=instance.assistant,
            version=version,
            actor=actor,
            reason=reason,
            policy=policy,
            override=override,
            evidence=evidence,
            trials=trials,
        )
    promotion: Promotion | None = None
    with contextlib.suppress(quorum.QuorumMissing, NotItsTurn):
        promotion = champion.promote(
            instance.promoter,
            instance.store,
            assistant=instance.assistant,
            version=version,
            actor=actor,
            policy=policy,
            reason=reason,
        )
    followers = _promote_followers(instance) if promotion is not None else []
    delivery.settle(instance)
    answer = _state(instance, version)
    standing = delivery.standing(instance, str(answer["digest"]))
    if promotion is None:  # more people are needed, or those who decide about the versions before it
        behind = _undecided_base(instance, version)
        more = {"trial": _trial(instance, answer), "behind": behind}
        return {**answer, "epoch": None, "known": False, **more, **standing, "exit_code": 3}
    return {**answer, "epoch": promotion.epoch, "known": promotion.known, "followers": followers, **standing}


def _promote_followers(instance: Instance) -> list[int]:
    """Numbers of the versions that were only waiting for the one that was promoted."""
    outcomes = promote_waiting(
        instance.db, instance.promoter, instance.store, instance.assistant, instance.settings.policy
    )
    return [one.candidate.number for one in outcomes if one.promotion is not None]


def _undecided_base(instance: Instance, version: str) -> int | None:
    """Number of the version that one was made on, if people have to decide about that first."""
    with instance.db.read() as connection:
        base = train.undecided_base(connection, candidates.get(connection, instance.assistant, version))
    return base.number if base else None


def reject(instance: Instance, version: str, actor: Actor, reason: str) -> Json:
    """Reject a candidate; it ends. Versions that were made on it are set aside, to be carried over without it."""
    before = _open_versions(instance)
    approvals.reject(instance.db, assistant=instance.assistant, version=version, actor=actor, reason=reason)
    delivery.settle(instance)
    answer = _state(instance, version)
    aside = sorted(before - _open_versions(instance) - {int(str(answer["version"]))})
    return {**answer, "set_aside": aside, **delivery.standing(instance, str(answer["digest"]))}


def _open_versions(instance: Instance) -> set[int]:
    """Numbers of the versions that wait for people."""
    with instance.db.read() as connection:
        return {one.number for one in candidates.versions(connection, instance.assistant, "pending")}


def revoke(instance: Instance, version: str, actor: Actor, reason: str, person: str | None = None) -> Json:
    """Take back one's own approval, or somebody else's, before the promotion."""
    approval = approvals.revoke(
        instance.db, assistant=instance.assistant, version=version, actor=actor, reason=reason, person=person
    )
    return {**_state(instance, version), "person": approval.person, "revoked": True}


def rollback(instance: Instance, version: str, actor: Actor, reason: str) -> Json:
    """Go back to a version that the champion was made on; if it is the champion already, only deliver to MLflow."""
    now, target = instance.champion(), instance.version(version)
    current = now is not None and target is not None and target.digest == now.digest
    if current and now is not None and not delivery.standing(instance, now.digest)["served"]:
        with instance.db.read() as connection:
            promotion = replace(champion.lineage(connection, instance.assistant)[-1], known=True)
    else:
        promotion = champion.rollback(
            instance.promoter, instance.store, assistant=instance.assistant, version=version, actor=actor, reason=reason
        )
    delivery.settle(instance)
    with instance.db.read() as connection:
        number = candidates.get(connection, instance.assistant, promotion.version).number
    return {**promotion.to_json(), "number": number, **delivery.standing(instance, promotion.version)}


def _trial(instance: Instance, version: Mapping[str, Json]) -> int | None:
    """Number of a version's trial that is under way: its end takes every approval away that was given before."""
    mine = (
        one["id"]
        for one in trials.standing(instance)
        if (one["number"], one["state"]) == (version["version"], "under_way")
    )
    return next(mine, None)


def _state(instance: Instance, version: str) -> dict[str, Json]:
    with instance.db.read() as connection:
        candidate = candidates.get(connection, instance.assistant, version)
    return {"version": candidate.number, "digest": candidate.digest, "state": candidate.state}
