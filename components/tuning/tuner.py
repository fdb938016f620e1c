"""Continual tuning of one adapter on one task, resumable at every checkpoint to the same bytes.

Where several processes share the work (`Ranks`), each reads its share of a step's rows; gradients add up to those of
the whole batch, and every process makes the same optimizer step and EMA update on the same bits.
"""

import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Protocol

from components.model.adapters import AdapterSlot
from components.model.memory import enough_memory
from components.model.prompts import Rendered
from components.model.ranks import shares
from components.model.trunk import State, Trunk
from components.settings import TuningSettings, length
from components.tuning.early_stopping import EarlyStopping
from components.tuning.points import Tensors, TuningFailed
from components.tuning.progress_curves import FILE as CURVES
from components.tuning.pseudo_rehearsal import Recall, parents_answers
from components.tuning.rehearsal import batches, select_rows
from components.tuning.run import Parent, Run, TuningResult, fisher_rows
from components.tuning.stopping import put_off

__all__ = ["Checkpoints", "Parent", "Tensors", "TuningFailed", "TuningResult", "tune"]

Progress = Callable[[str, int, int], None]
CHECKPOINT = "checkpoint.safetensors"
MEMORY = (
    "set tuning.rows_per_pass to auto or a small number, tuning.gradient_checkpointing to true, base_model.dtype to "
    "bfloat16, base_model.quantization to nf4, or spread the base model over several GPUs: base_model.sharded=true"
)


class Checkpoints(Protocol):
    """A small mutable work area; `read` gives None for what is absent or damaged."""

    def read(self, name: str) -> bytes | None:
        """Bytes written under `name`."""

    def write(self, name: str, data: bytes) -> None:
        """Replace what stands under `name`."""


def tune(
    trunk: Trunk,
    slot: AdapterSlot,
    new: Sequence[Rendered],
    rehearsal_rows: Sequence[Rendered],
    parent: Parent | None,
    settings: TuningSettings,
    checkpoints: Checkpoints | None,
    batch_rows: int = 32,
    progress: Progress | None = None,
    recalls: Sequence[Recall] = (),
    pseudo: Sequence[Rendered] = (),
    validation: Sequence[Rendered] = (),
) -> TuningResult:
    """Tune the adapter in `slot` on `new` rows with `rehearsal_rows` of earlier tasks mixed in.

    `pseudo` rows are the new task's too, labelled by a model (pseudo_labels.py), and come on top of `new`. With
    `validation` rows, which are never learnt from, the run may end early (early_stopping.py).

    A new group (`parent` None) trains plainly, as published; a reused one starts from its parent's weights
    with a fresh optimizer, under the EMA rule of the settings. Without `checkpoints` a run cannot be resumed.

    Raises:
        TuningFailed: the loss is not finite, too many EMA updates fell back, the adapter did not change, or the
            settings ask for points of the curve that do not exist.
        OutOfMemory: the device has not enough memory, whatever `rows_per_pass` allows.
        RanksDisagree: processes that share the run no longer have the same rows, checkpoint or weights.
    """
    indices, span = select_rows(len(new), settings.max_rows, settings.seed), length(len(new), settings)
    rehearsal_rows = rehearsal_rows if settings.rehearsal.share > 0 else ()
    if parent is None:
        slot.initialise(settings.seed)
        recalls = ()
    else:
        slot.load(parent.adapter)
    recall_rows = parents_answers(trunk.base, slot, recalls, batch_rows)
    rows = [new[i] for i in indices] + list(rehearsal_rows) + recall_rows + list(pseudo)
    stopping = EarlyStopping(span, len(validation) if settings.early_stopping else 0)
    held_out = range(len(rows), len(rows) + stopping.rows)
    rows += validation[: stopping.rows]
    old = range(len(indices), len(indices) + len(rehearsal_rows) + len(recall_rows))
    plan = batches(
        len(indices),
        [
            (len(rehearsal_rows), settings.rehearsal.share),
            (len(recall_rows), settings.pseudo_rehearsal.share),
            (len(pseudo), settings.pseudo_labels.share),
        ],
        span.steps,
        settings.batch_size,
        settings.seed,
    )
    ranks = trunk.base.ranks
    parts = [part[ranks.number] for part in shares(plan, ranks.count)]
    read = (
        plan if trunk.base.is_sharded else [[batch[k] for k in part] for batch, part in zip(plan, parts, strict=True)]
    )
    sample = fisher_rows(len(indices), settings)
    needs_state = sorted({*chain(*read), *sample})
    ranks.agree("the rows to learn from", repr([row.tokens for row in rows]).encode())
    # apart: rows read together round alike, so that measuring validation rows changes nothing about the others
    states = _trunk_states(trunk, rows, needs_state, batch_rows, progress)
    states |= _trunk_states(trunk, rows, held_out[ranks.number :: ranks.count], batch_rows, progress)
    before = slot.tensors()
    run = Run(trunk, slot, rows, states, parent, settings, stopping)
    teacher_rows = old if settings.rehearsal.targets == "parent" else old[len(rehearsal_rows) :]
    run.distil([i for i in needs_state if i in teacher_rows], batch_rows)
    step = run.restore(checkpoints.read(CHECKPOINT)) if checkpoints else 0
    if progress and step:
        progress("tune", step, span.steps)
    try:
        with put_off() as stop, enough_memory("while tuning", MEMORY):
            while not stopping.is_over(step):
                run.step(step, plan[step], parts[step], old)
                step += 1
                if progress:
                    progress("tune", 1, span.steps)
                if stopping.is_due(step):
                    run.validate(step, held_out, batch_rows)
                stop.due = ranks.any(stop.due)
                if step % settings.checkpoint_every == 0 or stopping.is_over(step) or stop.due:
                    run.check()
                    if checkpoints and ranks.first:
                        checkpoints.write(CHECKPOINT, run.checkpoint(step))
                        checkpoints.write(CURVES, json.dumps(run.curves()).encode())
                if stop.due:
                    stop.obey()
    finally:
        slot.dropout(active=False)  # the process goes on with the same slot, whatever happened
    return run.finish(before, sample, len(rehearsal_rows), len(recall_rows))


def _trunk_states(
    trunk: Trunk, rows: Sequence[Rendered], indices: Sequence[int], batch_rows: int, progress: Progress | None
) -> dict[int, State]:
    report = (lambda n: progress("trunk", n, len(indices))) if progress else None
    return dict(zip(indices, trunk.states([rows[i].tokens for i in indices], batch_rows, report), strict=True))
