"""The server's policy: the one in force, proposals, answers to them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from components.audit.log import Actor
from components.promotion import policy
from components.storage.objects import Json
from lcia.instance import Instance


def in_force(instance: Instance) -> Json:
    """The policy in force with its proposal, and every proposed change, newest first."""
    with instance.db.read() as connection:
        standing = policy.in_force(connection, instance.assistant)
        proposals = policy.proposals(connection, instance.assistant)
    return {
        "server": standing is not None,
        "number": standing.id if standing else None,
        "standing": _proposal(standing) if standing else None,
        "policy": instance.settings.policy.model_dump(mode="json"),
        "proposals": [_proposal(one) for one in proposals],
    }


def propose(instance: Instance, actor: Actor, changes: Mapping[str, Any], reason: str) -> Json:
    """Propose a change of the server's policy."""
    with instance.db.begin() as connection:
        return _proposal(policy.propose(connection, instance.assistant, changes, actor=actor, reason=reason))


def answer(instance: Instance, actor: Actor, proposal: int, reason: str, *, accept: bool) -> Json:
    """Accept or refuse a proposed policy; accepting needs another admin than the one who proposed it."""
    do = policy.accept if accept else policy.refuse
    with instance.db.begin() as connection:
        return _proposal(do(connection, instance.assistant, proposal, actor=actor, reason=reason))


def _proposal(proposal: policy.Proposal) -> dict[str, Json]:
    times = {"proposed_at": _text(proposal.proposed_at), "ended_at": _text(proposal.ended_at)}
    return {**vars(proposal), **times, "state": proposal.state}


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
