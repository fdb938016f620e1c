"""The verdict of `assess_task`: learn, hold, nothing to learn, or refuse, with the reasons."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from components.grouping.pool import Group, Pool
from components.grouping.router import GroupingDecision
from components.quality.known import ChampionScore, Known, judge_known
from components.quality.omissions import Omission, as_records
from components.settings import Settings, TuningSettings, length, old_shares
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
    release: bool,
    force: bool = False,
) -> dict[str, Any]:
    """The assessment record; the task that it names is without the quarantined rows.

    `release`: a person has let the task pass that was held for extreme drift. `force`: a person wants it learnt even if
    the champion does it already.
    """
    validation_record, drift_record = store.get_json(validation), store.get_json(drift)
    clean = without_rows(snapshot, {(row["split"], row["id"]) for row in validation_record["quarantined_rows"]}, store)
    champion = ChampionScore.from_json(drift_record["champion"]) if drift_record["champion"] else None
    no_score, target, policy = drift_record["champion_skipped"], clean.task.target, settings.quality.known
    finding = judge_known(champion, no_score, drift_record["verdict"], target, policy)
    if pool.group_of(clean.digest) is not None:
        finding = Known(is_known=True, words="the champion has learnt exactly these rows already")
    opinion = _opinion(validation_record, drift_record, decision, finding, force=force or policy.force, release=release)
    omissions = [*Omission.of(validation_record), *Omission.of(drift_record)]
    if champion is None and parent is not None and validation_record["verdict"] != "refuse":
        omissions.append(Omission("known already", f"the champion was not tried on it: {no_score}"))
    return {
        "kind": "assessment",
        "schema": 1,
        "submitted_task": snapshot.digest,
        "task": clean.digest,
        "parent": parent,
        "verdict": opinion.verdict,
        "reasons": list(opinion.reasons),
        "not_checked": as_records(omissions),
        "group": decision.group if decision.action == "reuse" else None,
        "grouping": decision.to_json(),
        "validation": validation,
        "drift": drift,
        "estimate": estimate(settings, clean, pool, decision),
        "length": length(clean.splits["train"].rows, settings.tuning).to_json(),
        "reports": {
            "validation": validation_record["report"],
            "drift": drift_record["report"],
            "evidently": drift_record["evidently"],
        },
    }


def _opinion(
    validation_record: Mapping[str, Any],
    drift_record: Mapping[str, Any],
    decision: GroupingDecision,
    finding: Known,
    *,
    force: bool,
    release: bool,
) -> _Opinion:
    if validation_record["verdict"] == "refuse":
        faults = [c for c in validation_record["checks"] if c["severity"] == "hard" and not c["success"]]
        return _Opinion(
            "refuse", tuple(f"{c['name']} of {c['split']}: seen {c['seen']}, expected {c['expected']}" for c in faults)
        )
    if finding.is_known and not force:
        return _Opinion("nothing_to_learn", (finding.words,))
    if drift_record["verdict"] == "extreme" and not release:
        return _Opinion("hold", tuple(drift_record["reasons"]))
    if decision.action == "hold":
        return _Opinion("hold", (decision.words,))
    reasons = (decision.words, *drift_record["reasons"], *((finding.words,) if drift_record["champion"] else ()))
    return _Opinion("learn", (*reasons, "learnt all the same: it is forced") if finding.is_known else reasons)


def estimate(settings: Settings, snapshot: Snapshot, pool: Pool, decision: GroupingDecision) -> dict[str, int]:
    """Work of learning the task in full length: optimizer steps, rows, predictions; an early stop makes it less.

    `row_visits` counts every row each time it is read with gradients: the task's own, those of earlier tasks, and those
    that the Fisher information is measured on, twice where a group learns again.
    """
    tuning, evaluation = settings.tuning, settings.evaluation
    group = pool.group(decision.group) if decision.action == "reuse" and decision.group else None
    prior = len(group.tasks) if group else 0
    points = 2 + len(tuning.curve) if prior else 1
    validation = snapshot.splits["validation"].rows
    validation = min(validation, evaluation.validation_rows or validation)
    span = length(snapshot.splits["train"].rows, tuning)
    learnt = round(span.visits / (1 - _share_on_top(tuning, snapshot, group)))
    fisher = min(tuning.ema.fisher_rows, span.drawn) if tuning.ema.rule == "curvature" else 0
    return {
        "steps": span.steps,
        "training_rows": span.read,
        "row_visits": learnt + fisher * (2 if prior else 1),
        "predictions": points * validation * (1 + prior) + snapshot.splits["test"].rows * (2 + prior),
    }


def _share_on_top(tuning: TuningSettings, snapshot: Snapshot, group: Group | None) -> float:
    """Share of rows of earlier tasks and of pseudo-labelled ones among all rows of the steps."""
    share = tuning.pseudo_labels.share if snapshot.unlabelled_split else 0.0
    if group is None:
        return share
    with_rows = sum(entry.kept_rows is not None for entry in group.tasks) / len(group.tasks)
    with_rows = with_rows if tuning.rehearsal.share > 0 else 0.0
    recalled_tasks = 1 if tuning.pseudo_rehearsal.tasks == "all" else 1 - with_rows
    return share + sum(old_shares(tuning, with_rows, recalled_tasks))
