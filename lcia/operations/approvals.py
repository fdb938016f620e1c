"""The state of a decision: approvals given, those that count, those that are missing, and what the gate says now."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection

from components.errors import GateRefused
from components.promotion import candidates, champion, judging, policy, quorum, train, trial_rows
from components.promotion.candidates import Candidate
from components.promotion.quorum import Weighed
from components.settings import PolicySettings
from components.storage.objects import ObjectCorrupt, ObjectMissing
from lcia.instance import Instance

_AS_RECORDED: dict[str, Any] = {"again": False, "words": ""}


def decision(instance: Instance, version: Candidate) -> dict[str, Any]:
    """The state of the decision about a version, as `docs/json.md` describes it under `lcia show`."""
    with instance.db.read() as connection:
        rules = policy.standing(connection, instance.assistant, instance.settings.policy)
        now = champion.current(connection, instance.assistant)
        away = candidates.rolled_away(connection, version)
        base = train.undecided_base(connection, version)
        is_open = version.state == "pending" or away
        judgement = judge(instance, version, rules) if is_open else {"verdict": version.verdict, **_AS_RECORDED}
        override = judging.gate_stands_against(judgement["verdict"] or "unknown", rules.gate) and is_open
        ballot = quorum.weigh(connection, version, rules.approval, override=override)
        return {
            "undecided": is_open,
            "rolled_away": away,
            "in_use": now is not None and now.version == version.digest,
            "was_champion": _was_champion(connection, version),
            "stale": version.state == "pending" and not base and version.parent != (now.version if now else None),
            "behind": base.number if base else None,
            "judged": judgement,
            "override": override,
            "trials": trial_rows.bound(connection, version.digest),
            "sites": sorted(candidates.sites(connection, version)),
            "quorum": _quorum(connection, version, rules, ballot, override=override) if is_open else [],
            "given": _votes(connection, version, ballot if is_open else ()),
            "barred": sorted({version.submitted_by, version.launched_by}) if rules.approval.four_eyes else [],
        }


def valid(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The approvals of a `decision` that count, or counted when it was made."""
    fields = ("person", "assured", "how", "reason")
    return [{name: vote[name] for name in fields} for vote in state["given"] if vote["counts"]]


def not_counted(state: dict[str, Any]) -> list[dict[str, str]]:
    """Every approval of a `decision` that does not count though nobody took it back, and why."""
    if not state["undecided"]:
        return []
    void = [one for one in state["given"] if one["verdict"] == "approve" and one["why_not"] and not one["revoked"]]
    return [{"person": one["person"], "why": one["why_not"]} for one in void]


def votes(
    instance: Instance, connection: Connection, version: Candidate, rules: PolicySettings
) -> list[dict[str, Any]]:
    """Every yes and no to a version; `why_not` is why a yes does not count, empty where it does or is history."""
    if version.state != "pending" and not candidates.rolled_away(connection, version):
        return _votes(connection, version, ())
    plain, spite = (quorum.weigh(connection, version, rules.approval, override=spite) for spite in (False, True))
    if plain == spite:  # whatever the gate says now, which may take seconds to find out
        return _votes(connection, version, plain)
    verdict = judge(instance, version, rules)["verdict"] or "unknown"
    return _votes(connection, version, spite if judging.gate_stands_against(verdict, rules.gate) else plain)


def judge(instance: Instance, version: Candidate, rules: PolicySettings) -> dict[str, Any]:
    """The gate's verdict under the policy in force; None where it would have to be judged again and can't be."""
    try:
        judgement = judging.present(instance.store, version, rules.gate)
    except (GateRefused, ObjectMissing, ObjectCorrupt) as why:
        return {"verdict": None, "again": True, "words": str(why)}
    return {"verdict": judgement.verdict, "again": judgement.again is not None, "words": judgement.words}


def _quorum(
    connection: Connection, version: Candidate, rules: PolicySettings, ballot: list[Weighed], *, override: bool
) -> list[dict[str, Any]]:
    sites = quorum.quorums(connection, version, rules.approval, ballot, override=override)
    return [
        {
            "site": site.site,
            "given": len(site.people),
            "needed": site.needed,
            "people": list(site.people),
            "roles_missing": list(site.roles_missing),
        }
        for site in sites
    ]


def _votes(connection: Connection, version: Candidate, ballot: Iterable[Weighed]) -> list[dict[str, Any]]:
    void = {one.approval.id: one.why_not for one in ballot}
    return [
        {
            "person": one.person,
            "verdict": one.verdict,
            "assured": one.assured,
            "how": one.how,
            "reason": one.reason,
            "at": one.at.isoformat(),
            "expires_at": one.expires_at.isoformat(),
            "override": one.override,
            "revoked": one.revoked_at is not None,
            "counts": one.verdict == "approve" and one.revoked_at is None and not void.get(one.id),
            "why_not": void.get(one.id, ""),
        }
        for one in quorum.answers(connection, version)
    ]


def _was_champion(connection: Connection, version: Candidate) -> bool:
    return any(one.version == version.digest for one in champion.lineage(connection, version.assistant))
