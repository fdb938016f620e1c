"""The gate's verdict under the present policy.

A report holds under the policy it was made with. Under another policy the same scores are judged again: the scores, the
looks at anchors and people's answers about the task are in the evidence, so no model runs and nothing is predicted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from components.errors import GateRefused, LciaError
from components.gate.report import present_form
from components.promotion.candidates import Candidate
from components.settings import GateSettings, Settings
from components.storage.objects import Json, ObjectStore

if TYPE_CHECKING:
    from components.gate.inputs import GateEvidence

REMEMBERED = 64
"""Judgements kept in memory, by evidence and policy: each takes seconds, over objects that never change."""
NOT_JUDGED_BY = {"enforce", "attempts_window_days"}
"""Keys of the gate's policy that do not change the verdict: what it means, and which attempt a version was."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Judgement:
    """The gate's judgement of a candidate under one policy."""

    verdict: str
    """pass, fail or inconclusive."""
    rows: tuple[Mapping[str, Any], ...]
    """The report's rows, as `GateRow` has them."""
    again: dict[str, Json] | None = None
    """The new report if it was judged again; None if the candidate's own holds."""

    @property
    def words(self) -> str:
        """The rows that keep it from passing, for messages."""
        return "; ".join(f"{r['rule']} {r['task'] or ''}: {r['words']}" for r in self.rows if r["verdict"] in _AGAINST)


_AGAINST = ("fail", "inconclusive")


def present(store: ObjectStore, candidate: Candidate, policy: GateSettings) -> Judgement:
    """The gate's judgement of a candidate under `policy`; remembered.

    Raises:
        GateRefused: it has to be judged again, but the rows for that are not kept.
        ObjectMissing, ObjectCorrupt: its evidence is not whole.
    """
    try:
        return _present(store, candidate.evidence, candidate.digest, candidate.verdict, policy.model_dump_json())
    except _NotJudged as why:
        raise GateRefused(
            f"version {candidate.number} was judged under another gate policy than the present one and can't be "
            f"judged again from its evidence ({why}); `lcia reject {candidate.number}` and `lcia retry` of its task "
            "make a new candidate"
        ) from why


def gate_stands_against(verdict: str, policy: GateSettings) -> bool:
    """True if only an override can promote a version with this verdict."""
    return policy.enforce and verdict != "pass"


class _NotJudged(Exception):
    """The stored evidence is not enough to judge again."""


@lru_cache(maxsize=REMEMBERED)
def _present(store: ObjectStore, evidence: str, digest: str, verdict: str, policy: str) -> Judgement:
    present_policy = GateSettings.model_validate_json(policy)
    record = store.get_json(evidence)
    before = present_form(store.get_json(record["gate"]))
    own_policy = _made_under(store, digest)
    if own_policy is not None and _same(own_policy, present_policy):
        return Judgement(verdict, tuple(before["rows"]))
    from components.gate.gate import decide_gate  # here, as it loads much and is seldom needed

    try:
        report = decide_gate(_inputs(store, record, before, present_policy), present_policy).to_json()
    except (LciaError, KeyError, TypeError, ValueError) as error:
        raise _NotJudged(f"{type(error).__name__}: {error}") from error
    return Judgement(report["verdict"], tuple(report["rows"]), report)


def _made_under(store: ObjectStore, digest: str) -> GateSettings | None:
    """The gate's policy that a version was judged under; None if its records do not hold one that can be read."""
    manifest = store.get_json(digest)
    config = manifest.get("config") if isinstance(manifest, dict) else None
    if not config:
        return None
    try:
        return GateSettings.model_validate(store.get_json(config)["policy"]["gate"])
    except (ValidationError, KeyError, TypeError):
        return None


def _same(one: GateSettings, other: GateSettings) -> bool:
    return one.model_dump(exclude=NOT_JUDGED_BY) == other.model_dump(exclude=NOT_JUDGED_BY)


def _inputs(store: ObjectStore, record: Record, before: Record, policy: GateSettings) -> "GateEvidence":
    """The gate's input, with the reserve that `policy` holds back.

    Facts from outside the records (looks so far, declared replacements, a released hold) are those of the report.
    """
    from components.promotion.evidence import change_gate_evidence, gate_evidence, gate_inputs

    evaluation = store.get_json(record["evaluation"])
    rows: dict[str, list[Record]] = {}
    for row in before["rows"]:
        rows.setdefault(row["rule"], []).append(row)
    looks = {row["task"]: row["anchor_look"] - 1 for row in rows.get("lifetime", ())}
    fallback = rows.get("fallback", [])
    lessons = record.get("rebase") or record.get("relearnt")
    if lessons:
        return gate_inputs(
            store,
            evaluation,
            tuple(lessons["lost"]),
            share=policy.reserve_share,
            fallback=fallback[0]["value"] if fallback else None,
            limit=fallback[0]["limit"] if fallback else 0.0,
            attempt=before["attempt"],
            looks=looks,
            other_base="rebase" in record,
        )
    if record["tuning"] is None:
        settings = Settings.model_validate({"policy": {"gate": policy.model_dump()}})
        evidence = change_gate_evidence(store, settings, evaluation, attempt=before["attempt"], looks=looks)
        return _with_replacements(evidence, rows)
    limits = {"tuning": {"ema": {"max_fallback": fallback[0]["limit"]}}} if fallback else {}
    settings = Settings.model_validate({"policy": {"gate": policy.model_dump()}, **limits})
    evidence = gate_evidence(
        store,
        settings,
        store.get_json(record["assessment"]),
        store.get_json(record["tuning"]),
        evaluation,
        attempt=before["attempt"],
        drift_accepted=all(row["verdict"] == "pass" for row in rows.get("drift", ())),
        looks=looks,
    )
    return _with_replacements(evidence, rows)


def _with_replacements(evidence: "GateEvidence", rows: Mapping[str, list[Record]]) -> "GateEvidence":
    """The evidence with the replacements that the report names."""
    replacements = {row["task"]: row["superseded_by"] for row in rows.get("superseded", ())}
    return replace(
        evidence, prior=tuple(replace(task, superseded_by=replacements.get(task.name)) for task in evidence.prior)
    )
