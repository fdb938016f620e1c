"""Methods that no setting of the product does: its tuner and evaluator on the rows that a worker learnt from.

The state of a method that ran through the worker gives the rows: those of its champion's tasks, without what the
checks set aside.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from benchmarks.method.variants import TASK_RANK, applied
from benchmarks.superni.scores import best_scores
from components.evaluation.prediction import Evaluator
from components.model.prompts import Rendered, render
from components.model.workbench import Workbench
from components.settings import Settings, TuningSettings, load_settings
from components.storage.objects import ObjectStore
from components.tasks.snapshot import Snapshot
from components.tuning.rehearsal import select_rows
from components.tuning.tuner import Parent, Tensors, TuningResult, tune

ORTHOGONAL = "orthogonal:0.5"
"""Weight of O-LoRA's penalty, as in benchmarks/method."""
References = Mapping[str, Mapping[str, tuple[str, ...]]]


class Direct:
    """The model under a method's settings, and the snapshots of the stream in the order learnt."""

    def __init__(self, settings: Settings, snapshots: Sequence[Snapshot], references: References, folder: Path) -> None:
        self.settings, self.snapshots, self.references, self.folder = settings, snapshots, references, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.bench = Workbench.load(settings)
        self.evaluator = Evaluator(self.bench.trunk, self.bench.slot, settings.evaluation.batch_rows)

    def joint(self, visits: int, say: Callable[[str], None]) -> dict[str, Any]:
        """All tasks at once for `visits` row visits, less than a batch short of them."""
        rows = [row for snapshot in self.snapshots for row in self._train(snapshot)]
        own = joint_settings(self.settings, visits)
        say(f"joint: {len(rows)} rows, {own.steps} steps of {own.batch_size}")
        began = time.process_time()
        result = self._tune(rows, None, own, ObjectStore(self.folder.as_uri()).scratch(f"joint-{own.steps}"))
        adapter = result.points["live"]
        final = [self._scores(snapshot, adapter) for snapshot in self.snapshots]
        triangle = [final[: j + 1] for j in range(len(final))]
        cost = {"cpu_seconds": round(time.process_time() - began, 1), "visits": len(result.losses) * own.batch_size}
        return {"scores": triangle, **cost}

    def olora(self, say: Callable[[str], None]) -> dict[str, Any]:
        """One task after the other, each in its own slice of one wide adapter, near orthogonal to the others'."""
        own, triangle, parent = self.settings.tuning, [], None
        cost, visits = 0.0, 0
        for number, snapshot in enumerate(self.snapshots):
            file, facts = (self.folder / f"olora-{number}.{suffix}" for suffix in ("safetensors", "json"))
            if not facts.exists():
                say(f"olora: {snapshot.task.name}")
                began = time.process_time()
                with applied(ORTHOGONAL, self.bench.slot, number):
                    result = self._tune(self._train(snapshot), parent, own, None)
                adapter = result.points["live"]
                save_file(adapter, file)
                scores = [self._scores(each, adapter) for each in self.snapshots[: number + 1]]
                row = {"scores": scores, "visits": len(result.losses) * own.batch_size}
                row["cpu_seconds"] = time.process_time() - began
                facts.write_text(json.dumps(row), encoding="utf-8")
            content = json.loads(facts.read_text(encoding="utf-8"))
            parent = Parent(load_file(file), None)
            triangle.append(content["scores"])
            cost, visits = cost + content["cpu_seconds"], visits + content["visits"]
        return {"scores": triangle, "cpu_seconds": round(cost, 1), "visits": visits}

    def _tune(self, rows: Sequence[Rendered], parent: Parent | None, own: TuningSettings, scratch: Any) -> TuningResult:
        bench, batch = self.bench, self.settings.evaluation.batch_rows
        return tune(bench.trunk, bench.slot, rows, (), parent, own, scratch, batch)

    def _train(self, snapshot: Snapshot) -> list[Rendered]:
        """The rows of a task that a worker's run of the same seed is tuned on."""
        base, rows, own = self.bench.base, snapshot.rows("train"), self.settings.tuning
        chosen = [rows[i] for i in select_rows(len(rows), own.max_rows, own.seed)]
        return [render(base.reader, base.settings, r.instruction, r.input, r.output) for r in chosen]

    def _scores(self, snapshot: Snapshot, adapter: Tensors) -> list[float]:
        rows = snapshot.rows("test")
        queries = [self.evaluator.query(snapshot.task, row, "adapter") for row in rows]
        texts = [one.text for one in self.evaluator.predict(queries, {"adapter": adapter})]
        return best_scores(texts, rows, self.references[snapshot.task.name])


def method_settings(overrides: Sequence[str], tasks: int, home: Path, *, wide: bool) -> Settings:
    """Settings of a direct method; a `wide` adapter has a slice of rank 8 for each task, at the same scale."""
    rank = TASK_RANK * tasks
    adapter = (f"adapter.rank={rank}", f"adapter.alpha={2 * rank}") if wide else ()
    return load_settings(None, [*overrides, *adapter], {}, home)


def joint_settings(settings: Settings, visits: int) -> TuningSettings:
    """Tuning settings that read `visits` rows, less than a batch short of them, out of all rows."""
    return settings.tuning.model_copy(update={"steps": visits // settings.tuning.batch_size, "max_rows": None})
