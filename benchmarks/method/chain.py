"""Tasks learnt one after the other under one method; every tuning run and every score is kept by key.

Interrupted and repeated calls continue where they were. Runs that begin alike share what they share: the
first task of a group is tuned plainly by every method, so it is tuned once.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.method.variants import applied, damped, undamped
from components.evaluation.choose import Point, choose_point
from components.evaluation.prediction import Evaluator
from components.model.adapters import AdapterSlot
from components.model.base import load_base
from components.model.prompts import Rendered, render
from components.model.trunk import State, Trunk
from components.settings import Settings, load_settings
from components.storage.objects import ObjectStore, canonical, digest_of
from components.tasks.package import read_package
from components.tasks.snapshot import Snapshot, take_snapshot
from components.tasks.task_file import Split
from components.tuning.pseudo_rehearsal import Recollection, recall_prompts
from components.tuning.rehearsal import batches, select_rows
from components.tuning.tuner import Parent, Tensors, TuningResult, tune

A = (
    "movie_sentiment", "request_domain", "passive_voice", "booking_slot",
    "product_sentiment", "assistant_intent", "negate_sentence", "grammar_check",
)  # fmt: skip
B = (
    "grammar_check", "assistant_intent", "negate_sentence", "product_sentiment",
    "booking_slot", "passive_voice", "request_domain", "movie_sentiment",
)  # fmt: skip
ORDERS = {"a": A, "b": B, "a4": A[:4], "b4": B[:4], "quick": A[:3]}
"""`a4` and `b4` are for trying things out, `quick` is for seeing that nothing is broken."""

GROUPS = {"movie_sentiment": "sentiment", "product_sentiment": "sentiment"}
"""Groups of the eight tasks by the router's defaults; every other task has a group of its own."""

MACHINE = (
    "base_model.dtype=bfloat16",
    "base_model.threads=1",
    "tuning.ema.max_fallback=1",
    "tuning.checkpoint_every=1000000",
)
"""Settings of every run: a bfloat16 base with float32 adapters nearly halves the time on a CPU with AVX512-BF16, and
two processes of one thread use two cores better than one of two."""
SHORT = (
    "tuning.steps=60",
    "tuning.batch_size=4",
    "tuning.max_rows=240",
    "tuning.learning_rate=0.003",
    "tuning.early_stopping=false",
    "tuning.ema.decay=1",
    "tuning.pseudo_rehearsal.rows_per_task=1000",
    "adapter.top_layers=6",
)
"""60 steps of four rows: the length at which most methods were compared. `shipped` leaves these to the defaults."""
TEST_ROWS, VALIDATION_ROWS, PASSING_ROWS = 200, 100, 100
"""Rows per score: on the diagonal and in the last row, for choosing, and in between."""


@dataclass(frozen=True)
class Method:
    """Way in which a group's adapter learns its second and later tasks.

    `settings` overrides `BASIS`; `point` names the point of the curve that is kept, or `choose` (validation
    rows of the earlier tasks) or `choose:a,b` among some points. `variant` is one of `variants.py`; `base` are
    settings of the first task too, such as those of the adapter.
    """

    name: str
    settings: tuple[str, ...] = ()
    point: str = "live"
    variant: str = ""
    base: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """A group after some tasks: its key and what the next tuning run starts from."""

    key: str
    tasks: tuple[str, ...]
    adapter: Tensors
    curvature: Tensors | None


@dataclass
class Outcome:
    """Scores of one chain: `scores[j][task]` are the test rows' scores after learning task j."""

    order: Sequence[str]
    scores: list[dict[str, list[float]]] = field(default_factory=list)
    cpu_seconds: float = 0.0
    visits: int = 0
    """Rows read in all steps, those of earlier tasks among them."""
    adapters: int = 0
    points: list[str] = field(default_factory=list)


class CachedTrunk(Trunk):
    """A trunk that remembers the states of the examples' own rows in a file."""

    def __init__(self, base: Any, slot: AdapterSlot, file: Path) -> None:
        self._file = file
        self._known: dict[tuple[int, ...], State] = {}
        super().__init__(base, slot)

    def prepare(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Read the states of `rows` from the file, or compute and write them."""
        rows = list(dict.fromkeys(rows))
        if self._file.exists():
            states = load_file(self._file)["states"]
        else:
            states = torch.cat([s.output for s in super().states(rows, 16) if s.output is not None])
            _write(self._file, {"states": states})
        start = 0
        for row in rows:
            self._known[row] = State(row, states[start : start + len(row)])
            start += len(row)

    def states(
        self, rows: Sequence[Sequence[int]], batch_rows: int, progress: Any = None, *, keep_past: bool = False
    ) -> list[State]:
        """As `Trunk.states`; keys and values are not in the file."""
        if keep_past:
            return super().states(rows, batch_rows, progress, keep_past=True)
        missing = list(dict.fromkeys(tuple(row) for row in rows if tuple(row) not in self._known))
        states = dict(zip(missing, super().states(missing, batch_rows, progress), strict=True))
        return [self._known.get(tuple(row)) or states[tuple(row)] for row in rows]


class Chains:
    """The loaded model, the example tasks and the folder in which results are kept."""

    def __init__(
        self, folder: Path, overrides: Sequence[str] = (), *, shipped: bool = False, split: Split = "test"
    ) -> None:
        self.folder, self.split = folder, split
        self.overrides = (*MACHINE, *(() if shipped else SHORT), *overrides)
        self.settings = self._settings((), 0)
        base = load_base(self.settings.base_model, folder / "models")
        self.slot = AdapterSlot(base, self.settings.adapter)
        store = ObjectStore(f"file://{folder / 'objects'}")
        examples = Path(__file__).parents[2] / "examples" / "tasks"
        self.tasks: dict[str, Snapshot] = {n: take_snapshot(read_package(examples / n), store) for n in A}
        self.trunk = CachedTrunk(base, self.slot, folder / f"trunk-{base.layers - self.slot.first_layer}.safetensors")
        self.base = base
        self._rows = {(n, s): self._render(n, s) for n in self.tasks for s in ("train", "validation", "test")}
        limits = {"train": 10**6, "validation": VALIDATION_ROWS, "test": TEST_ROWS}
        if self.trunk.split:
            self.trunk.prepare([r.tokens for (_, s), rows in self._rows.items() for r in rows[: limits[s]]])
        self.evaluator = Evaluator(self.trunk, self.slot, 16)

    def _settings(self, extra: Sequence[str], seed: int) -> Settings:
        values = [*self.overrides, *extra, f"tuning.seed={seed}"]
        return load_settings(None, values, {}, self.folder)

    def _render(self, task: str, split: str) -> list[Rendered]:
        rows = self.tasks[task].rows(split)
        settings, tokenizer = self.base.settings, self.base.tokenizer
        return [render(tokenizer, settings, r.instruction, r.input, r.output) for r in rows]

    def run(self, method: Method, setting: str, order: str, seed: int) -> Outcome:
        """Learn the tasks of an order; `setting` is `single`, `grouped` or `per_task`."""
        outcome = Outcome(ORDERS[order])
        nodes: dict[str, Node] = {}
        for j, task in enumerate(ORDERS[order]):
            group = {"single": "all", "grouped": GROUPS.get(task, task), "per_task": task}[setting]
            node, facts = self.learn(method, nodes.get(group), task, seed)
            nodes[group] = node
            outcome.cpu_seconds += facts["cpu_seconds"]
            outcome.visits += facts["visits"]
            outcome.points.append(facts["point"])
            outcome.scores.append({})
            last = j == len(ORDERS[order]) - 1
            for each in nodes.values():
                for prior in each.tasks:
                    rows = TEST_ROWS if last or prior == task else PASSING_ROWS
                    outcome.scores[j][prior] = self.scores(each.key, each.adapter, prior, self.split, rows)
        outcome.adapters = len(nodes)
        return outcome

    def joint(self, method: Method, order: str, seed: int, visits: int) -> Outcome:
        """All tasks at once in one adapter from scratch, with as many rows read as a chain reads in all (`visits`)."""
        tasks = ORDERS[order]
        rows = [row for t in tasks for row in self._chosen(t, seed)]
        steps = round(visits / self.settings.tuning.batch_size)
        own = (f"tuning.steps={steps}", "tuning.max_rows=null", "tuning.ema.rule=none")
        settings = self._settings((*method.settings, *own), seed)
        key = "joint-" + digest_of(canonical([sorted(tasks), settings.tuning.model_dump(mode="json")]))[:18]
        file = self.folder / "runs" / f"{key}.safetensors"
        if not file.exists():
            held_out = [row for t in tasks for row in self._held_out(t)]
            began = time.process_time()
            result = tune(self.trunk, self.slot, rows, (), None, settings.tuning, None, 16, validation=held_out)
            _write(file, result.points["live"])
            facts = {"cpu_seconds": round(time.process_time() - began, 1), "visits": _visits(result, settings)}
            _write(file.with_suffix(".json"), facts)
        adapter, facts = load_file(file), json.loads(file.with_suffix(".json").read_text())
        outcome = Outcome(tasks, cpu_seconds=facts["cpu_seconds"], visits=facts["visits"], adapters=1)
        outcome.scores.append({t: self.scores(key, adapter, t, self.split, TEST_ROWS) for t in tasks})
        return outcome

    def _chosen(self, task: str, seed: int) -> list[Rendered]:
        """The rows that a chain's run of the same seed is tuned on."""
        rows = self._rows[task, "train"]
        return [rows[i] for i in select_rows(len(rows), self.settings.tuning.max_rows, seed)]

    def _held_out(self, task: str) -> list[Rendered]:
        """Rows that decide when a run ends; none where it always ends at its length."""
        return self._rows[task, "validation"] if self.settings.tuning.early_stopping else []

    def learn(self, method: Method, parent: Node | None, task: str, seed: int) -> tuple[Node, dict[str, Any]]:
        """The group after one more task, from the cache or by tuning."""
        first = ("tuning.ema.rule=curvature", "tuning.rehearsal.share=0", "tuning.pseudo_rehearsal.share=0")
        extra = method.settings if parent else first
        settings = self._settings(extra, seed)
        inputs = {
            "parent": parent.key if parent else None,
            "tasks": [*parent.tasks, task] if parent else [task],
            "tuning": settings.tuning.model_dump(mode="json"),
            "adapter": settings.adapter.model_dump(mode="json"),
            "version": 2,
        }
        if method.variant and (parent or method.base):
            inputs["variant"] = method.variant
        run = digest_of(canonical(inputs))[:24]
        tensors, facts = self.folder / "runs" / f"{run}.safetensors", self.folder / "runs" / f"{run}.json"
        if not facts.exists():
            self._tune(settings, method.variant, parent, task, seed, tensors, facts)
        entry = json.loads(facts.read_text())
        weights = load_file(tensors)
        points = {name: _part(weights, f"{name}/") for name in entry["points"]}
        point = self._choose(method.point, run, points, parent, task) if parent else "live"
        tasks = (*parent.tasks, task) if parent else (task,)
        node = Node(f"{run}-{point}", tasks, points[point], _part(weights, "curvature/") or None)
        return node, {**entry, "point": point}

    def _tune(
        self,
        settings: Settings,
        variant: str,
        parent: Node | None,
        task: str,
        seed: int,
        tensors: Path,
        facts: Path,
    ) -> None:
        tuning = settings.tuning
        rehearsal, recalls = [], []
        began = time.process_time()
        if parent and tuning.rehearsal.share > 0:
            for prior in parent.tasks:
                rows = self._rows[prior, "train"]
                rehearsal += [rows[i] for i in select_rows(len(rows), tuning.rehearsal.rows_per_task, seed)]
        if parent and tuning.pseudo_rehearsal.share > 0:
            recollections = [self._recollection(prior) for prior in parent.tasks]
            inputs = [(row.input, ()) for row in self.tasks[task].rows("train") if row.input]
            recalls = recall_prompts(self.base, self.slot, recollections, inputs, tuning.pseudo_rehearsal, seed)
        old = parent.curvature if parent else None
        given = damped(variant, old)
        with applied(variant, self.slot, len(parent.tasks) if parent else 0):
            result = tune(
                self.trunk,
                self.slot,
                self._rows[task, "train"],
                rehearsal,
                Parent(parent.adapter, given) if parent else None,
                tuning,
                None,
                16,
                recalls=recalls,
                validation=self._held_out(task),
            )
        curvature = undamped(result.curvature, given, old) if given is not old else result.curvature
        cost = time.process_time() - began
        kept_tensors = {f"{name}/{key}": t for name, point in result.points.items() for key, t in point.items()}
        if curvature:
            kept_tensors |= {f"curvature/{key}": t for key, t in curvature.items()}
        _write(tensors, kept_tensors)
        content = {
            "points": list(result.points),
            "cpu_seconds": round(cost, 1),
            "visits": _visits(result, settings),
            "steps": len(result.losses),
            "fallback_share": result.fallback_share,
            "loss": [round(x, 4) for x in result.losses],
            "beta": [round(x, 4) for x in result.history["beta_median"]],
        }
        _write(facts, content)

    def _recollection(self, task: str) -> Recollection:
        instructions = tuple(sorted({row.instruction for row in self.tasks[task].rows("train")}))
        return Recollection(instructions, self.tasks[task].task.decoding.max_new_tokens)

    def _choose(self, rule: str, run: str, points: Mapping[str, Tensors], parent: Node, task: str) -> str:
        if not rule.startswith("choose"):
            return rule
        names = rule.partition(":")[2].split(",") if ":" in rule else list(points)
        margin = self.settings.evaluation.choice_margin
        before = {t: self.validation(parent.key, parent.adapter, t) for t in parent.tasks}
        scores = []
        for name in names:
            key, adapter = f"{run}-{name}", points[name]
            prior = {t: self.validation(key, adapter, t) for t in parent.tasks}
            scores.append(Point(name, self.validation(key, adapter, task), prior))
        return choose_point(scores, before, margin).point.name

    def validation(self, key: str, adapter: Tensors, task: str) -> list[float]:
        """Scores of the rows that points are chosen on."""
        return self.scores(key, adapter, task, "validation", VALIDATION_ROWS)

    def scores(self, key: str, adapter: Tensors, task: str, split: str, rows: int) -> list[float]:
        """Exact match per row of an adapter on the first `rows` rows of a split."""
        file = self.folder / "scores" / f"{key}-{task}-{split}.json"
        values: list[float] = json.loads(file.read_text()) if file.exists() else []
        if len(values) < rows:
            examples = self.tasks[task].rows(split)[len(values) : rows]
            queries = [self.evaluator.query(self.tasks[task].task, example, "adapter") for example in examples]
            predictions = self.evaluator.predict(queries, {"adapter": adapter}, scores_only=True)
            values += [prediction.score for prediction in predictions]
            _write(file, values)
        return values[:rows]


def _visits(result: TuningResult, settings: Settings) -> int:
    """Rows read in the steps that a run made, each as often as it came up."""
    tuning = settings.tuning
    sources = [
        (result.kept_rows, tuning.rehearsal.share),
        (result.recalled_rows, tuning.pseudo_rehearsal.share),
    ]
    plan = batches(result.rows, sources, len(result.losses), tuning.batch_size, tuning.seed)
    return sum(len(batch) for batch in plan)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}")
    if file.suffix == ".safetensors":
        save_file(content, temporary)
    else:
        temporary.write_text(json.dumps(content))
    temporary.replace(file)
