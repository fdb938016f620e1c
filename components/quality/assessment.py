"""The verdict of `assess_task`: learn, hold, nothing to learn, or refuse, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from components.grouping.pool import Pool
from components.grouping.router import GroupingDecision
from components.quality.known import ChampionScore, Known, judge_known
from components.quality.omissions import Omission, listed
from components.settings import Settings
from components.storage.objects import ObjectStore
from components.tasks.snapshot import Snapshot, without_rows

Verdict = Literal["learn", "hold", "nothing_to_learn", "refuse"]


@dataclass(frozen=True)
class _Opinion:
    verdict: Verdict
    reasons: tuple[str, ...]


def assess(
    store: ObjectStore,
    settings: Settings,
    snapshot: Snapshot,
    pool: Pool,
    decision: GroupingDecision,
    *,
    validation: str,
    drift: str,
    parent: str | None,
    released: bool,
    forced: bool = False,
) -> dict[str, Any]:
    """The assessment record; quarantined rows are left out of the task it names.

    `released`: a person let a task pass that was held for extreme drift. `forced`: a person wants it learnt even if
    the champion does it already.
    """
    checked, drifted = store.get_json(validation), store.get_json(drift)
    clean = without_rows(snapshot, {(row["split"], row["id"]) for row in checked["quarantined_rows"]}, store)
    champion = ChampionScore.from_json(drifted["champion"]) if drifted["champion"] else None
    skipped, target, policy = drifted["champion_skipped"], clean.task.target, settings.quality.known
    known = judge_known(champion, skipped, drifted["verdict"], target, policy)
    if pool.group_of(clean.digest) is not None:
        known = Known(known=True, words="the champion has learnt exactly these rows already")
    opinion = _opinion(checked, drifted, decision, known, forced=forced or policy.force, released=released)
    omissions = [*Omission.of(checked), *Omission.of(drifted)]
    if champion is None and parent is not None and checked["verdict"] != "refuse":
        omissions.append(Omission("known already", f"the champion was not tried on it: {skipped}"))
    return {
        "kind": "assessment",
        "schema": 1,
        "submitted_task": snapshot.digest,
        "task": clean.digest,
        "parent": parent,
        "verdict": opinion.verdict,
        "reasons": list(opinion.reasons),
        "not_checked": listed(omissions),
        "group": decision.group if decision.action == "reuse" else None,
        "grouping": decision.to_json(),
        "validation": validation,
        "drift": drift,
        "estimate": estimate(settings, clean, pool, decision),
        "reports": {
            "validation": checked["report"],
            "drift": drifted["report"],
            "evidently": drifted["evidently"],
        },
    }


def _opinion(
    checked: Mapping[str, Any],
    drifted: Mapping[str, Any],
    decision: GroupingDecision,
    known: Known,
    *,
    forced: bool,
    released: bool,
) -> _Opinion:
    if checked["verdict"] == "refuse":
        failed = [c for c in checked["checks"] if c["severity"] == "hard" and not c["success"]]
        return _Opinion(
            "refuse", tuple(f"{c['name']} of {c['split']}: seen {c['seen']}, expected {c['expected']}" for c in failed)
        )
    if known.known and not forced:
        return _Opinion("nothing_to_learn", (known.words,))
    if drifted["verdict"] == "extreme" and not released:
        return _Opinion("hold", tuple(drifted["reasons"]))
    if decision.action == "hold":
        return _Opinion("hold", (decision.words,))
    reasons = (decision.words, *drifted["reasons"], *((known.words,) if drifted["champion"] else ()))
    return _Opinion("learn", (*reasons, "learnt all the same: it is forced") if known.known else reasons)


def estimate(settings: Settings, snapshot: Snapshot, pool: Pool, decision: GroupingDecision) -> dict[str, int]:
    """What learning the task will do: optimizer steps, rows trained on, rows predicted."""
    tuning, evaluation = settings.tuning, settings.evaluation
    rows = min(snapshot.splits["train"].rows, tuning.max_rows or snapshot.splits["train"].rows)
    prior = len(pool.group(decision.group).tasks) if decision.action == "reuse" and decision.group else 0
    points = 2 + len(tuning.curve) if prior else 1
    checked = min(snapshot.splits["validation"].rows, evaluation.validation_rows or snapshot.splits["validation"].rows)
    return {
        "steps": tuning.steps,
        "training_rows": rows,
        "predictions": points * checked * (1 + prior) + snapshot.splits["test"].rows * (2 + prior),
    }
