"""The work of the step `tune`: objects in, one tuning record out."""

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from components.grouping.pool import Group, GroupTask, Pool
from components.grouping.router import Router
from components.model.adapters import AdapterSlot, read_weights, store_adapter
from components.model.prompts import Rendered, TooLong, render
from components.model.workbench import Workbench
from components.settings import Settings, TuningSettings, length
from components.storage.objects import ObjectStore, Scratch
from components.tasks.rows import Example, Unlabelled
from components.tasks.snapshot import Snapshot, load_snapshot
from components.tasks.task_file import EVALUATED
from components.tuning.early_stopping import validation_rows
from components.tuning.pseudo_labels import Labeller, pseudo_label
from components.tuning.pseudo_rehearsal import Recall, Recollection, recall_prompts
from components.tuning.rehearsal import scale_shares, select_rows
from components.tuning.starting_point import labels_rows
from components.tuning.tuner import Checkpoints, Parent, Progress, TuningResult, tune

LABELS = "pseudo-labels.json"


def tune_task(
    store: ObjectStore,
    settings: Settings,
    bench: Workbench,
    snapshot: Snapshot,
    pool: Pool,
    group_id: str | None,
    scratch_key: str,
    progress: Progress | None = None,
    leave_out: Collection[str] = (),
) -> str:
    """Tune `group_id` (None opens a group) of `pool` on a task; returns the tuning record's digest.

    Tasks of the pool that `leave_out` names, since others replace them, are neither rehearsed nor recalled. An
    interrupted call continues at its last checkpoint and ends in the same digest.
    """
    group = pool.group(group_id) if group_id else None
    new = _render(bench, snapshot.rows("train"))
    standing = tuple(entry for entry in group.tasks if entry.name not in leave_out) if group else ()
    earlier = _Earlier.of(store, settings, bench, snapshot, standing)
    parent = _parent(store, bench.slot, group, protects=bool(standing)) if group else None
    scratch = store.scratch(scratch_key)

    def run(
        checkpoints: Checkpoints, pseudo: Sequence[Rendered] = (), validation: Sequence[Rendered] = ()
    ) -> TuningResult:
        return tune(
            bench.trunk,
            bench.slot,
            new,
            earlier.rows,
            parent,
            earlier.tuning,
            checkpoints,
            settings.evaluation.batch_rows,
            progress,
            earlier.recalls,
            pseudo,
            validation,
        )

    labels: _Labels | None = None
    if labels_rows(settings, snapshot):
        labels = _Labels.read(scratch, store)
        if labels is None:
            by = settings.tuning.pseudo_labels.labeller
            # no early stopping here: the validation rows are to show how far the first pass's answers can be trusted
            first = run(_FirstPass(scratch)) if by == "self" else None
            priors = [load_snapshot(store, entry.task) for entry in pool.tasks() if entry.name not in leave_out]
            labels = _label(store, settings, bench, snapshot, priors, pool, first, progress)
            labels.write(scratch)
    validation = _validation(settings, bench, snapshot) if settings.tuning.early_stopping else []
    result = run(scratch, _render(bench, labels.rows) if labels else (), validation)
    record = _record(store, settings, bench, snapshot, group, result)
    if labels:
        record["pseudo_labels"] = labels.record
    return store.put_json(record)


def _validation(settings: Settings, bench: Workbench, snapshot: Snapshot) -> list[Rendered]:
    """The task's validation rows for early stopping, drawn at random; those that are too long are left out."""
    rows, tuning = snapshot.rows("validation"), settings.tuning
    span = length(snapshot.splits["train"].rows, tuning)
    count = validation_rows(span, settings.evaluation.validation_rows)
    out = []
    for i in select_rows(len(rows), count, tuning.seed):
        with suppress(TooLong):
            out += _render(bench, [rows[i]])
    return out


def _render(bench: Workbench, rows: tuple[Example, ...] | list[Example]) -> list[Rendered]:
    base = bench.base
    return [render(base.reader, base.settings, r.instruction, r.input, r.output, r.images) for r in rows]


@dataclass(frozen=True)
class _FirstPass:
    """The checkpoints of a first pass beside those of the second, so that both go when the area is cleared."""

    scratch: Scratch

    def read(self, name: str) -> bytes | None:
        return self.scratch.read(f"first-{name}")

    def write(self, name: str, data: bytes) -> None:
        self.scratch.write(f"first-{name}", data)


@dataclass(frozen=True)
class _Labels:
    """Pseudo-labelled rows and what goes on record of them; made once, then found again by a resumed run."""

    rows: list[Example]
    record: dict[str, Any]

    @classmethod
    def read(cls, scratch: Scratch, store: ObjectStore) -> "_Labels | None":
        data = scratch.read(LABELS)
        if data is None:
            return None
        value = json.loads(data)
        return cls([Example.from_row(row, store.get) for row in value["rows"]], value["record"])

    def write(self, scratch: Scratch) -> None:
        scratch.write(LABELS, json.dumps({"rows": [r.to_row() for r in self.rows], "record": self.record}).encode())


def _label(
    store: ObjectStore,
    settings: Settings,
    bench: Workbench,
    snapshot: Snapshot,
    priors: Sequence[Snapshot],
    pool: Pool,
    first: TuningResult | None,
    progress: Progress | None,
) -> _Labels:
    """Labels by the live weights of a first pass or, without one, by the champion, routed as at inference."""
    if first is None:
        router = Router.of(pool, settings.grouping)
        adapters = {group.id: bench.slot.fetch(store, group.adapter) for group in pool.groups}
    else:
        router, adapters = None, {"first pass": first.points["live"]}

    def routes(rows: Sequence[Unlabelled]) -> list[str | None]:
        return router.groups_of(rows) if router else ["first pass"] * len(rows)

    labeller = Labeller(bench.trunk, bench.slot, routes, adapters, settings.evaluation.batch_rows)
    tuning = settings.tuning
    return _Labels(*pseudo_label(labeller, snapshot, priors, tuning.pseudo_labels, tuning.seed, progress))


@dataclass(frozen=True)
class _Earlier:
    """Earlier tasks of the group, without replaced ones: kept rows, prompts to recall, shares scaled to both."""

    rows: list[Rendered]
    recalls: list[Recall]
    tuning: TuningSettings

    @classmethod
    def of(
        cls,
        store: ObjectStore,
        settings: Settings,
        bench: Workbench,
        snapshot: Snapshot,
        entries: Sequence[GroupTask],
    ) -> "_Earlier":
        tuning = settings.tuning
        with_rows = [entry for entry in entries if entry.kept_rows and store.why_erased(entry.kept_rows) is None]
        rehearsal = with_rows if tuning.rehearsal.share > 0 else []
        every = tuning.pseudo_rehearsal.tasks == "all"
        recall = [entry for entry in entries if every or entry not in rehearsal]
        rows = [row for entry in rehearsal if entry.kept_rows for row in store.get_lines(entry.kept_rows)]
        return cls(
            _render(bench, [Example.from_row(row, store.get) for row in rows]),
            _recall(store, bench, snapshot, recall, tuning) if tuning.pseudo_rehearsal.share > 0 else [],
            scale_shares(tuning, len(rehearsal), len(recall), len(entries)),
        )


def _recall(
    store: ObjectStore, bench: Workbench, snapshot: Snapshot, tasks: list[GroupTask], tuning: TuningSettings
) -> list[Recall]:
    """Prompts of earlier tasks for the parent to answer; no labelled row of theirs is read.

    The new task lends its inputs, those of its unlabelled rows among them.
    """
    rows: list[Example | Unlabelled] = [*snapshot.rows("train"), *snapshot.unlabelled_rows()]
    inputs = [(row.input or "", row.images) for row in rows if row.input or row.images]
    recollections = [_recollection(store, entry) for entry in tasks]
    return recall_prompts(bench.base, bench.slot, recollections, inputs, tuning.pseudo_rehearsal, tuning.seed)


def _recollection(store: ObjectStore, entry: GroupTask) -> Recollection:
    questions: list[Unlabelled] = []
    if entry.kept_questions and store.why_erased(entry.kept_questions) is None:
        questions = [Unlabelled.from_row(row, store.get) for row in store.get_lines(entry.kept_questions)]
    limit = load_snapshot(store, entry.task).task.decoding.max_new_tokens
    return Recollection(entry.instructions, limit, entry.has_inputs, tuple(questions))


def _parent(store: ObjectStore, slot: AdapterSlot, group: Group, *, protects: bool) -> Parent:
    """The group's adapter and curvature; a group all of whose tasks are replaced has none that would hold it back."""
    adapter = slot.fetch(store, group.adapter)  # first: it says what does not fit, and why
    curvature = slot.importance(read_weights(store.get(group.curvature))) if group.curvature else None
    if curvature and not protects:
        curvature = {name: torch.zeros_like(tensor) for name, tensor in curvature.items()}
    return Parent(adapter, curvature)


def _record(
    store: ObjectStore,
    settings: Settings,
    bench: Workbench,
    snapshot: Snapshot,
    group: Group | None,
    result: TuningResult,
) -> dict[str, Any]:
    adapters = {
        name: store_adapter(store, bench.slot.files(tensors, bench.base.digest))
        for name, tensors in result.points.items()
    }
    return {
        "kind": "tuning",
        "schema": 1,
        "task": snapshot.digest,
        "group": group.id if group else None,
        "rule": settings.tuning.ema.rule if group else "none",
        "points": adapters,
        "curvature": _store_tensors(store, result.curvature),
        "kept_rows": _keep_rows(store, settings, snapshot),
        **({"kept_questions": questions} if (questions := _keep_questions(store, settings, snapshot)) else {}),
        "rows": result.rows,
        "length": result.length.to_json(),
        "stopping": result.stopping,
        "rehearsed_rows": result.kept_rows,
        "recalled_rows": result.recalled_rows,
        "losses": result.losses,
        "old_losses": result.old_losses,
        "history": result.history,
        "fallback_share": result.fallback_share,
        "fallbacks": result.fallbacks,
        "base_model": bench.base.digest,
        "numerics": bench.base.numerics,
        **({"resumed_across": list(result.resumed_across)} if result.resumed_across else {}),
    }


def _store_tensors(store: ObjectStore, tensors: dict[str, Tensor] | None) -> str | None:
    return store.put(save({n: tensors[n].contiguous() for n in sorted(tensors)})) if tensors else None


def _keep_rows(store: ObjectStore, settings: Settings, snapshot: Snapshot) -> str | None:
    """Training rows kept for later rehearsal, within what the task's owner allows."""
    return _keep(store, snapshot.rows("train"), _row_limit(settings, snapshot), settings.tuning.seed)


def _keep_questions(store: ObjectStore, settings: Settings, snapshot: Snapshot) -> str | None:
    """Unlabelled rows kept for recall, within what the owner allows beside the training rows that are kept.

    Questions that the task is evaluated on are left out.
    """
    recall = settings.tuning.pseudo_rehearsal
    held_out = {row.question for split in EVALUATED for row in snapshot.rows(split)}
    rows = [row for row in snapshot.unlabelled_rows() if row.question not in held_out]
    room = snapshot.task.retention.train_rows - min(_row_limit(settings, snapshot), len(snapshot.rows("train")))
    return _keep(store, rows, min(recall.rows_per_task, room) if recall.share > 0 else 0, settings.tuning.seed)


def _keep(store: ObjectStore, rows: Sequence[Example | Unlabelled], limit: int, seed: int) -> str | None:
    """Digest of at most `limit` of the rows, drawn at random; None if there are none to keep."""
    places = select_rows(len(rows), limit, seed) if limit > 0 else ()
    return store.put_lines([rows[i].to_row() for i in places]) if places else None


def _row_limit(settings: Settings, snapshot: Snapshot) -> int:
    """Most training rows to keep."""
    rehearsal = settings.tuning.rehearsal
    return min(rehearsal.rows_per_task, snapshot.task.retention.train_rows) if rehearsal.share > 0 else 0
