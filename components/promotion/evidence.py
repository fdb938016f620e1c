"""Evidence: the gate's input about a candidate, and the record that approvals are bound to."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from components.evaluation.history import has_predictions
from components.evaluation.scored import scored_rows
from components.gate.inputs import GateEvidence, NewTask, PriorTask
from components.gate.levels import reserve_rows
from components.gate.power import TaskRows
from components.gate.report import GateReport, present_form
from components.grouping.pool import Pool
from components.grouping.rewording import Rewording
from components.settings import Settings
from components.storage.objects import ObjectStore
from components.tasks.replaced import replaced_tasks
from components.tasks.reversal import Change, Reversal
from components.tasks.snapshot import load_snapshot
from components.tasks.wordings import WordingChange

Record = Mapping[str, Any]


def gate_evidence(
    store: ObjectStore,
    settings: Settings,
    assessment: Record,
    tuning: Record,
    evaluation: Record,
    *,
    attempt: int,
    drift_accepted: bool,
    looks: Mapping[str, int] | None = None,
    declarations: Mapping[str, str] | None = None,
) -> GateEvidence:
    """The scores and verdicts of one candidate, in the form the gate takes.

    `looks`: prior task -> number of candidates compared with its anchor before; see `gate.attempts`. `declarations`:
    replaced tasks that people named, label to label; those that packages name are added.
    """
    pool = Pool.from_manifest(store.get_json(evaluation["pool"]))
    new, share = load_snapshot(store, evaluation["task"]), settings.policy.gate.reserve_share
    name = next(entry.name for entry in pool.tasks() if entry.task == new.digest)
    validation, drift = store.get_json(assessment["validation"]), store.get_json(assessment["drift"])
    predictions = scored_rows(store, evaluation["predictions"][name])
    return GateEvidence(
        prior=_prior_tasks(store, pool, evaluation, share, looks or {}, declarations or {}),
        new=NewTask(
            name=name,
            champion_test=_scores(scored_rows(store, evaluation["champion"][name])),
            candidate_test=_scores(predictions),
            candidate_validation=tuple(evaluation["validation"]["candidate"]),
            live_validation=tuple(evaluation["validation"]["live"]),
            target=new.task.target,
            reserve=reserve_rows([row["row"] for row in predictions], share),
            cut=sum(row.get("cut", False) and row["score"] < 1 for row in predictions),
            answer_limit=new.task.decoding.max_new_tokens,
        ),
        validation=validation["verdict"],
        drift=drift["verdict"],
        routing_share=evaluation["routing_share"],
        rewording=Rewording.from_json(evaluation["rewording"]) if "rewording" in evaluation else None,
        fallback_share=fallback_share(tuning),
        fallback_limit=settings.tuning.ema.max_fallback,
        attempt=attempt,
        drift_accepted=drift_accepted,
    )


def change_gate_evidence(
    store: ObjectStore,
    settings: Settings,
    evaluation: Record,
    *,
    attempt: int,
    looks: Mapping[str, int],
    declarations: Mapping[str, str] | None = None,
) -> GateEvidence:
    """The gate's input about a change without learning: every task is an earlier one; see `gate_evidence`."""
    pool = Pool.from_manifest(store.get_json(evaluation["pool"]))
    share = settings.policy.gate.reserve_share
    return GateEvidence(
        prior=_prior_tasks(store, pool, evaluation, share, looks, declarations or {}),
        new=None,
        rewording=Rewording.from_json(evaluation["rewording"]),
        attempt=attempt,
    )


def _prior_tasks(
    store: ObjectStore,
    pool: Pool,
    evaluation: Record,
    share: float,
    looks: Mapping[str, int],
    declarations: Mapping[str, str],
) -> tuple[PriorTask, ...]:
    """All tasks of a pool but the one that was learnt."""
    replaced_by = replaced_tasks(store, pool, declarations)
    return tuple(
        replace(
            prior_task(store, evaluation, entry.name, entry.task, group.id, share, looks.get(entry.name, 0)),
            superseded_by=replaced_by.get(entry.name),
        )
        for group in pool.groups
        for entry in group.tasks
        if entry.task != evaluation["task"]
    )


def fallback_share(tuning: Record) -> float | None:
    """Share of the EMA updates that fell back to a fixed beta; None if the rule has no fallback."""
    return tuning["fallback_share"] if tuning["rule"] in ("paper", "released", "scale_free") else None


def prior_task(
    store: ObjectStore, evaluation: Record, name: str, task: str, group: str, share: float, looks: int
) -> PriorTask:
    """One earlier task's scores in the champion, its anchor and the candidate; `looks`: looks at its anchor so far."""
    if name not in evaluation["predictions"]:
        return PriorTask(name, task, group, (), (), (), may_differ=True)
    before, after = (
        scored_rows(store, evaluation["champion"][name]),
        scored_rows(store, evaluation["predictions"][name]),
    )
    anchor = scored_rows(store, evaluation["anchors"][name]["predictions"])
    any_change = any(old["key"] != new["key"] for old, new in zip(before, after, strict=True))
    reserve = reserve_rows([row["row"] for row in after], share)
    return PriorTask(
        name, task, group, _scores(before), _scores(anchor), _scores(after), any_change, reserve, looks + 1
    )


def evidence_record(
    content: Record, task: str, gate: str, reports: Mapping[str, str], **links: str | None
) -> dict[str, Any]:
    """The object whose digest approvals are bound to; `content` is the evaluation record.

    `links` are the digests of what it rests on: `evaluation`, `assessment` and `tuning`; of a change without learning,
    which has neither of the last two, `wordings` or `reversal`; of a version that was carried over, its evidence
    before, `origin`.
    """
    return {
        "kind": "evidence",
        "schema": 1,
        "candidate": content["pool"],
        "task": task,
        "parent": content["parent"],
        "assessment": None,
        "tuning": None,
        "gate": gate,
        "reports": dict(reports),
        **links,
    }


def model_card(store: ObjectStore, evaluation: Record, tuning: Record, gate: GateReport) -> str:
    """Markdown about a version, for people who find it in a registry."""
    pool = Pool.from_manifest(store.get_json(evaluation["pool"]))
    task = load_snapshot(store, evaluation["task"]).task
    return _card(
        pool,
        evaluation,
        gate,
        f"candidate that learnt {task.label}",
        f"{task.description} Owner: {task.owner}. Licence of the data: {task.licence}.",
        [
            f"Chosen point {evaluation['reason']}.",
            *([f"Pseudo-labels: {tuning['pseudo_labels']['words']}."] if "pseudo_labels" in tuning else []),
        ],
    )


def wordings_card(store: ObjectStore, evaluation: Record, change: WordingChange, gate: GateReport) -> str:
    """Markdown about a version that learnt nothing, but knows a task by other wordings."""
    pool = Pool.from_manifest(store.get_json(evaluation["pool"]))
    count = sum(move["rows"] for moves in evaluation["rerouted"].values() for move in moves)
    notes = [
        f"{len(change.add)} wordings are new, {len(change.remove)} were taken away.",
        f"{count} test rows go to another adapter than before.",
    ]
    return _card(pool, evaluation, gate, f"wordings of {change.label}", "No adapter was changed.", notes)


def reversal_card(store: ObjectStore, evaluation: Record, change: Reversal, gate: GateReport) -> str:
    """Markdown about a version without a task that the one before it had learnt."""
    pool = Pool.from_manifest(store.get_json(evaluation["pool"]))
    notes = [f"Its group is what it was before: {len(change.keeps)} tasks."]
    return _card(pool, evaluation, gate, f"{change.label} taken out", "Nothing new was learnt.", notes)


def change_card(store: ObjectStore, evaluation: Record, change: Change, gate: GateReport) -> str:
    """Markdown about a version that changed something without learning."""
    if isinstance(change, Reversal):
        return reversal_card(store, evaluation, change, gate)
    return wordings_card(store, evaluation, change, gate)


def rebase_card(store: ObjectStore, evaluation: Record, gate: GateReport, not_taught: Mapping[str, str]) -> str:
    """Markdown about a version that learnt everything again on another base model; `not_taught`: task -> why."""
    pool = Pool.from_manifest(store.get_json(evaluation["pool"]))
    before = store.get_json(evaluation["parent"])["base_model"]
    title = f"candidate on another base model, {len(pool.tasks())} tasks learnt again"
    about = "No task is new: each is compared with the champion on the base model before, row by row."
    notes = [
        f"Base model before: `{before[:12]}`.",
        *(f"Not learnt again: {name}; {why}." for name, why in not_taught.items()),
    ]
    return _card(pool, evaluation, gate, title, about, notes)


def _card(pool: Pool, evaluation: Record, gate: GateReport, title: str, about: str, notes: Sequence[str]) -> str:
    lines = [
        f"# {pool.assistant}: {title}",
        "",
        about,
        "",
        f"- Base model `{pool.base_model[:12]}`, frozen; {len(pool.groups)} adapter group(s).",
        *(f"- {note}" for note in notes),
        f"- Gate: **{gate.verdict}** ({'enforced' if gate.enforced else 'report only'}).",
        f"- Changed settings: {', '.join(pool.overrides) or 'none'}; assurance: {pool.assurance}.",
        "",
        "| task | group | score |",
        "|---|---|---|",
    ]
    for group in pool.groups:
        for entry in group.tasks:
            score = evaluation["scores"].get(entry.name)
            lines.append(f"| {entry.name} | {group.id} | {'not measurable' if score is None else f'{score:.3f}'} |")
    lines += ["", "| gate rule | task | verdict | why |", "|---|---|---|---|"]
    lines += [f"| {row.rule} | {row.task or ''} | {row.verdict} | {row.words} |" for row in gate.rows]
    return "\n".join(lines) + "\n"


def held_back(store: ObjectStore, evaluation: Record, gate: Record) -> set[tuple[str, str]]:
    """Task and row id of every reserve row that the gate left closed, under the policy the version was made with."""
    pool = Pool.from_manifest(store.get_json(evaluation["pool"]))
    share = store.get_json(pool.config)["policy"]["gate"].get("reserve_share", 0.0) if pool.config else 0.0
    second_looks = [row for row in present_form(gate)["rows"] if row["look"] == 2]
    tasks, groups = {row["task"] for row in second_looks}, {row["group"] for row in second_looks}
    rows = set()
    for group in pool.groups:
        for entry in group.tasks:
            if has_predictions(store, evaluation, entry.name) and entry.name not in tasks and group.id not in groups:
                ids = [row["row"] for row in scored_rows(store, evaluation["predictions"][entry.name])]
                reserve = reserve_rows(ids, share)
                rows |= {(entry.name, i) for i, in_reserve in zip(ids, reserve, strict=True) if in_reserve}
    return rows


def present_rows(
    store: ObjectStore,
    evaluation: Record,
    share: float,
    looks: Mapping[str, int],
    declarations: Mapping[str, str] | None = None,
) -> list[TaskRows]:
    """Test rows of every measurable task of a version that is not replaced: input of the next candidate's power."""
    pool = Pool.from_manifest(store.get_json(evaluation["pool"]))
    replaced_by = replaced_tasks(store, pool, declarations or {})
    tasks = []
    for group in pool.groups:
        for entry in group.tasks:
            if has_predictions(store, evaluation, entry.name) and entry.name not in replaced_by:
                now = scored_rows(store, evaluation["predictions"][entry.name])
                anchor = scored_rows(store, evaluation["anchors"][entry.name]["predictions"])
                reserve = reserve_rows([row["row"] for row in now], share)
                look = looks.get(entry.name, 0) + 1
                tasks.append(TaskRows.of(entry.name, group.id, _scores(anchor), _scores(now), reserve, look))
    return tasks


def _scores(rows: list[dict[str, Any]]) -> tuple[float, ...]:
    return tuple(row["score"] for row in rows)


def gate_inputs(
    store: ObjectStore,
    evaluation: Record,
    not_taught: Sequence[str],
    *,
    share: float,
    fallback: float | None,
    limit: float,
    attempt: int,
    looks: Mapping[str, int],
    other_base: bool = True,
) -> GateEvidence:
    """The gate's evidence on a version of several lessons, on another base model if `other_base`.

    `share` of the test rows is held back, `fallback` and `limit` are as in `GateEvidence`.
    """
    pool = Pool.from_manifest(store.get_json(evaluation["pool"]))
    prior = [
        prior_task(store, evaluation, entry.name, entry.task, group.id, share, looks.get(entry.name, 0))
        for group in pool.groups
        for entry in group.tasks
    ]
    if other_base:
        prior = [replace(task, may_differ=True) for task in prior]  # also where the base model alone answers
    return GateEvidence(
        tuple(prior),
        None,
        fallback_share=fallback,
        fallback_limit=limit,
        attempt=attempt,
        not_taught=tuple(not_taught),
    )
