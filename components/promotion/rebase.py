"""Rebase onto another base model: the tasks it may be taught again, and how the result is judged against the champion.

Adapters fit one base model, so another one starts a line of its own: each task whose rows may be kept is learnt again,
one after the other, on a pool that begins empty. Only the end of that line becomes a candidate. Its evaluation record
is that of the last lesson, but compared with the champion of the old base model, row by row, and with each task's old
anchor: a change of models does not renew a lifetime budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from components.evaluation.history import has_predictions
from components.evaluation.reports import gate_html
from components.evaluation.scored import with_present_scores
from components.gate.gate import decide_gate
from components.gate.report import GateReport
from components.grouping.pool import GroupTask, Pool
from components.grouping.router import decide
from components.promotion.evidence import gate_inputs, rebase_card
from components.quality.assessment import estimate
from components.settings import Settings, length
from components.storage.objects import ObjectMissing, ObjectStore
from components.tasks.snapshot import load_snapshot
from components.tasks.task_file import EVALUATED

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Lesson:
    """One task to learn again."""

    entry: GroupTask
    """The task's entry in the champion's pool."""
    group: str
    """The champion's group."""
    rows: str
    """Digest of the rows to learn from: its training rows or, if not all may be kept, those kept for rehearsal."""


def lessons(store: ObjectStore, pool: Pool, order: Sequence[str], today: date) -> tuple[list[Lesson], dict[str, str]]:
    """Lessons of a pool that can be taught again, in `order` (task digests, oldest first); and task -> reason why not.

    The owner's retention decides, not the rows that happen to be in the store until the next sweep.
    """
    entries = {entry.task: (entry, group.id) for group in pool.groups for entry in group.tasks}
    teachable, reasons = [], {}
    for task in order:
        entry, group = entries[task]
        rows, why = _rows(store, entry, today)
        if rows is None:
            reasons[entry.name] = why
        else:
            teachable.append(Lesson(entry, group, rows))
    return teachable, reasons


def _rows(store: ObjectStore, entry: GroupTask, today: date) -> tuple[str | None, str]:
    """Digest of the rows to learn from, or None and the reason why there are none."""
    try:
        snapshot = load_snapshot(store, entry.task)
    except ObjectMissing:
        return None, "it was withdrawn"
    retention, train = snapshot.task.retention, snapshot.splits["train"]
    if retention.until is not None and retention.until < today:
        return None, f"its rows may be kept until {retention.until}"
    missing = [name for split in EVALUATED if not store.exists(name := snapshot.splits[split].object)]
    if missing or not retention.evaluation_rows:
        why = next(filter(None, map(store.why_erased, missing)), "its evaluation rows are not kept")
        return None, f"{why}, so nothing could tell whether it was learnt"
    if train.rows <= retention.train_rows and store.exists(train.object):
        return train.object, ""
    if entry.kept_rows and store.exists(entry.kept_rows):
        return entry.kept_rows, ""
    return None, "no training rows of it are kept"


def reassess(
    store: ObjectStore, settings: Settings, earlier: Record, lesson: Lesson, pool: Pool, parent: str | None, group: str
) -> dict[str, Any]:
    """The assessment record of a lesson: the checks from when the task came, placed beside its neighbours.

    `group`: the group of the new line with the tasks of the champion's group, or `new`.
    """
    snapshot = load_snapshot(store, lesson.entry.task).taught_from(lesson.rows, lesson.entry.instructions)
    decision = decide(pool, lesson.entry.instructions, settings.grouping, placement=group)
    return {
        **{name: earlier[name] for name in ("kind", "schema", "submitted_task", "task", "validation", "drift")},
        "parent": parent,
        "verdict": "learn",
        "reasons": [f"learnt again on another base model; {decision.words}"],
        "not_checked": list(earlier.get("not_checked", ())),
        "group": decision.group if decision.action == "reuse" else None,
        "grouping": decision.to_json(),
        "estimate": estimate(settings, snapshot, pool, decision),
        "length": length(snapshot.splits["train"].rows, settings.tuning).to_json(),
        "reports": dict(earlier["reports"]),
        "rows": {
            "train": lesson.rows,
            "instructions": list(lesson.entry.instructions),
            "wordings": list(lesson.entry.wordings),
        },
    }


def against_champion(store: ObjectStore, last: Record, champion: str, before: Record) -> dict[str, Any]:
    """The evaluation record of the line's end, with the champion's predictions and anchors in place of its own.

    `last` is the evaluation record of the last lesson, `before` the champion's. A task may have another name in the old
    pool: names depend on what was learnt before.
    """
    old, pool = (Pool.from_manifest(store.get_json(digest)) for digest in (champion, last["pool"]))
    names = {entry.task: entry.name for entry in old.tasks()}
    both = [
        (entry.name, names[entry.task])
        for entry in pool.tasks()
        if has_predictions(store, last, entry.name) and has_predictions(store, before, names[entry.task])
    ]
    common = {name for name, _ in both}
    anchors = {new: before["anchors"][name] for new, name in both}
    anchors = {new: {**a, "predictions": with_present_scores(store, a["predictions"])} for new, a in anchors.items()}
    return {
        **last,
        "parent": champion,
        "pool": store.put_json(replace(pool, parents=(champion, *pool.parents)).to_manifest()),
        "champion": {new: with_present_scores(store, before["predictions"][name]) for new, name in both},
        "predictions": {name: digest for name, digest in last["predictions"].items() if name in common},
        "routes": {name: digest for name, digest in last["routes"].items() if name in common},
        "scores": {name: score for name, score in last["scores"].items() if name in common},
        "anchors": {new: {**anchor, "version": anchor["version"] or champion} for new, anchor in anchors.items()},
        "not_measurable": [entry.name for entry in pool.tasks() if entry.name not in common],
        "rerouted": {},
    }


def judge(
    store: ObjectStore,
    settings: Settings,
    evaluation: Record,
    not_taught: Sequence[str],
    *,
    fallback: Sequence[float],
    attempt: int,
    looks: Mapping[str, int],
    other_base: bool = True,
) -> GateReport:
    """The gate's report: every task against the champion and against its anchor; a missing task is inconclusive.

    `fallback`: share of fallbacks in each lesson; empty if the rule has none. `other_base`: on another base model.
    """
    inputs = gate_inputs(
        store,
        evaluation,
        not_taught,
        share=settings.policy.gate.reserve_share,
        fallback=max(fallback, default=None),
        limit=settings.tuning.ema.max_fallback,
        attempt=attempt,
        looks=looks,
        other_base=other_base,
    )
    return decide_gate(inputs, settings.policy.gate)


def evidence_record(
    store: ObjectStore, links: Sequence[str], evaluation: Record, gate: GateReport, not_taught: Mapping[str, str]
) -> dict[str, Any]:
    """The object whose digest approvals are bound to: the last lesson's evidence, judged against the champion.

    `links` are the evidence records of all lessons, oldest first.
    """
    last, verdict = store.get_json(links[-1]), gate.to_json()
    reports = {
        "card": rebase_card(store, evaluation, gate, not_taught).encode(),
        "gate": gate_html(verdict).encode(),
    }
    return {
        **last,
        "candidate": evaluation["pool"],
        "parent": evaluation["parent"],
        "evaluation": store.put_json(dict(evaluation)),
        "gate": store.put_json(verdict),
        "reports": {**last["reports"], **{name: store.put(content) for name, content in reports.items()}},
        "rebase": {"links": list(links), "lost": dict(not_taught)},
    }
