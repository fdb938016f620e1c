"""The work of the step `evaluate_forgetting`: choose the point, predict all tasks, carry over what cannot change.

A prediction is named by its key (prompt tokens, adapter, decoding contract, numerics). After re-routing with
the candidate's router, an example whose key the champion's record already has keeps its prediction; a random
sample of carried ones is predicted again.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from components.errors import LciaError
from components.evaluation.choose import Point, choose_point
from components.evaluation.metrics import METRICS
from components.evaluation.prediction import Evaluator, Prediction, Query
from components.grouping.pool import GroupTask, Merge, Pool
from components.grouping.router import Router, extend
from components.model.prompts import render
from components.settings import Settings, changed_keys
from components.storage.objects import ObjectStore
from components.tasks.snapshot import Snapshot, load_snapshot

Progress = Callable[[str, int, int], None]
Rows = list[dict[str, Any]]


class EvaluationFailed(LciaError):
    """The predictions cannot be trusted; nothing was registered."""


@dataclass(frozen=True)
class Champion:
    """The parent version: its pool and evaluation record (None for the base model alone)."""

    digest: str | None
    pool: Pool
    evaluation: Mapping[str, Any] | None


@dataclass
class Forgetting:
    """One evaluation: what it needs, and how much it predicted and carried over."""

    store: ObjectStore
    settings: Settings
    evaluator: Evaluator
    champion: Champion
    snapshot: Snapshot
    progress: Progress | None = None
    predicted: int = 0
    carried: int = 0

    @property
    def name(self) -> str:
        """What the new task is called in the pool: `name`, or `name@version` beside an earlier version of it."""
        task = self.snapshot.task
        return task.label if any(e.name == task.name for e in self.champion.pool.tasks()) else task.name

    def run(self, tuning: Mapping[str, Any], config: str) -> str:
        """Evaluate one tuning record; returns the evaluation record's digest.

        Raises:
            EvaluationFailed: an adapter without effect, or a carried prediction that does not repeat.
        """
        self._check_champion()
        self._canary(tuning["points"]["live"])
        points, before, validation = self._validate(tuning)
        chosen, reason = choose_point(points, before, self.settings.evaluation.choice_margin)
        pool = self._candidate(tuning, chosen.name, config)
        champion = self._champion_rows()
        predictions = {
            entry.name: self._predict_task(pool, entry.task, champion.get(entry.name))
            for entry in pool.tasks()
            if self._measurable(entry.task)
        }
        recheck = self._recheck(pool, predictions)
        name = self.name
        own = pool.group_of(self.snapshot.digest)
        routed = [row["group"] == (own.id if own else None) for row in predictions[name]]
        record = {
            "kind": "evaluation",
            "schema": 1,
            "task": self.snapshot.digest,
            "parent": self.champion.digest,
            "pool": self.store.put_json(pool.to_manifest()),
            "numerics": self.evaluator.trunk.base.numerics,
            "numerics_digest": self.evaluator.trunk.base.numerics_digest,
            "chosen": chosen.name,
            "reason": reason,
            "before": dict(before),
            "points": [{"name": p.name, "new": p.new, "prior": dict(p.prior)} for p in points],
            "validation": {"candidate": validation[chosen.name], "live": validation["live"]},
            "predictions": {n: self._store(n, rows, pool) for n, rows in predictions.items()},
            "scores": {n: sum(r["score"] for r in rows) / len(rows) for n, rows in predictions.items()},
            "champion": {n: self._store(n, rows, pool) for n, rows in champion.items()},
            "anchors": self._anchors(pool, predictions),
            "not_measurable": [e.name for e in pool.tasks() if e.name not in predictions],
            "routing_share": sum(routed) / len(routed),
            "carried": self.carried,
            "predicted": self.predicted,
            "recheck": recheck,
        }
        return self.store.put_json(record)

    # -- choosing -----------------------------------------------------------------------------------

    def _validate(self, tuning: Mapping[str, Any]) -> tuple[list[Point], dict[str, float], dict[str, list[float]]]:
        """Validation scores of every point, of the champion on the group's prior tasks, and per row."""
        group = self.champion.pool.group(tuning["group"]) if tuning["group"] else None
        entries = [e for e in group.tasks if self._measurable(e.task)] if group else []
        prior = {e.name: load_snapshot(self.store, e.task) for e in entries}
        before: dict[str, float] = {}
        if group:
            before = {n: _mean(self._scores(s, group.adapter, "choose")) for n, s in prior.items()}
        points: list[Point] = []
        per_row: dict[str, list[float]] = {}
        names = sorted(tuning["points"], key=lambda n: (n != "ema", n == "live", n))
        for name in names:  # protected weights first: ties go to them
            adapter = tuning["points"][name]
            per_row[name] = self._scores(self.snapshot, adapter, "choose")
            scores = {n: _mean(self._scores(s, adapter, "choose")) for n, s in prior.items()}
            points.append(Point(name, _mean(per_row[name]), scores))
        return points, before, per_row

    def _scores(self, snapshot: Snapshot, adapter: str, what: str) -> list[float]:
        rows = snapshot.rows("validation")[: self.settings.evaluation.validation_rows]
        queries = [self.evaluator.query(snapshot.task, row, adapter) for row in rows]
        return [p.score for p in self._predict(queries, what, scores_only=True)]

    def _candidate(self, tuning: Mapping[str, Any], point: str, config: str) -> Pool:
        entry = GroupTask(self.snapshot.digest, self.name, self.snapshot.instructions(), tuning["kept_rows"])
        return extend(
            self.champion.pool,
            entry,
            group=tuning["group"],
            adapter=tuning["points"][point],
            curvature=tuning["curvature"],
            parent=self.champion.digest,
            config=config,
            settings=self.settings.grouping,
            merge=Merge(**tuning["merge"]) if tuning.get("merge") else None,
            overrides=changed_keys(self.settings),
        )

    # -- predicting ---------------------------------------------------------------------------------

    def _predict_task(self, pool: Pool, task: str, known: Rows | None, *, scores_only: bool = False) -> Rows:
        """Test predictions of one task under `pool`, row by row; known keys are carried over.

        With `scores_only` an answer that is known to score 0 is not decoded to its end: its text is None.
        """
        snapshot = load_snapshot(self.store, task)
        queries, groups = self._route(pool, snapshot)
        by_key = {row["key"]: row for row in known or () if row["text"] is not None}
        missing = [q for q in queries if q.key not in by_key]
        what = f"{snapshot.task.name}, {'champion' if pool is self.champion.pool else 'candidate'}"
        made = iter(self._predict(missing, f"predict {what}", scores_only=scores_only))
        out: Rows = []
        for query, group in zip(queries, groups, strict=True):
            old = by_key.get(query.key)
            if old is not None:
                self.carried += 1
                text, gap = old["text"], old["gap"]
            else:
                self.predicted += 1
                fresh = next(made)
                text, gap = fresh.text, fresh.gap
            score = METRICS[snapshot.task.metric](text, query.example.output) if text is not None else 0.0
            out.append(
                {
                    "row": query.example.id,
                    "key": query.key,
                    "group": group,
                    "text": text,
                    "score": score,
                    "gap": gap,
                    "carried": old is not None,
                }
            )
        return out

    def _route(self, pool: Pool, snapshot: Snapshot) -> tuple[list[Query], list[str | None]]:
        rows = snapshot.rows("test")
        router = Router.of(pool, self.settings.grouping)
        groups = [route.group for route in router.route_many([row.instruction for row in rows])]
        adapters = {g.id: g.adapter for g in pool.groups}
        queries = [
            self.evaluator.query(snapshot.task, row, adapters[group] if group else None)
            for row, group in zip(rows, groups, strict=True)
        ]
        return queries, groups

    def _predict(self, queries: Sequence[Query], what: str, *, scores_only: bool = False) -> list[Prediction]:
        needed = sorted({q.adapter for q in queries if q.adapter})
        adapters: dict[str, dict[str, Tensor]] = {d: self.evaluator.slot.fetch(self.store, d) for d in needed}
        progress = self.progress
        report = (lambda phase, n, total: progress(f"{what}, {phase}", n, total)) if progress else None
        return self.evaluator.predict(queries, adapters, scores_only=scores_only, progress=report)

    # -- the champion -------------------------------------------------------------------------------

    def _champion_rows(self) -> dict[str, Rows]:
        """The champion's predictions on every measurable task, the new one included.

        They are taken over from its own record, or predicted again where the numerics have changed.
        """
        champion, evaluation = self.champion, self.champion.evaluation
        same = evaluation is not None and evaluation["numerics_digest"] == self.evaluator.trunk.base.numerics_digest
        rows: dict[str, Rows] = {}
        for entry in champion.pool.tasks():
            if not self._measurable(entry.task):
                continue
            if same and evaluation is not None:
                rows[entry.name] = self._read(evaluation["predictions"][entry.name])
            else:
                rows[entry.name] = self._predict_task(champion.pool, entry.task, None)
        # Here only the score matters: a base model's long wrong answers need not be decoded to their end.
        rows[self.name] = self._predict_task(champion.pool, self.snapshot.digest, None, scores_only=True)
        return rows

    def _anchors(self, pool: Pool, predictions: Mapping[str, Rows]) -> dict[str, dict[str, str | None]]:
        """Per task the predictions of the version that first promoted it; the new task's are this candidate's.

        `version` names that version (None: this one). Under new numerics its predictions are made again.
        """
        name = self.name
        own = {"version": None, "predictions": self._store(name, predictions[name], pool)}
        evaluation = self.champion.evaluation
        if evaluation is None:
            return {name: own}
        same = evaluation["numerics_digest"] == self.evaluator.trunk.base.numerics_digest
        anchors: dict[str, dict[str, str | None]] = {name: own}
        for task, anchor in evaluation["anchors"].items():
            version = str(anchor["version"] or self.champion.digest)
            stored = anchor["predictions"]
            if not same and task in predictions:
                ancestor = Pool.from_manifest(self.store.get_json(version))
                digest = next(e.task for e in ancestor.tasks() if e.name == task)
                stored = self._store(task, self._predict_task(ancestor, digest, None), ancestor)
            anchors[task] = {"version": version, "predictions": stored}
        return anchors

    def _check_champion(self) -> None:
        pool, base = self.champion.pool, self.evaluator.trunk.base
        if pool.groups and pool.base_model != base.digest:
            raise EvaluationFailed(
                f"the champion was tuned on base model {pool.base_model[:12]}, the settings name "
                f"{base.settings.name} ({base.digest[:12]}); a lineage keeps its base model: use another `assistant`"
            )

    # -- proofs -------------------------------------------------------------------------------------

    @torch.no_grad()
    def _canary(self, adapter: str) -> None:
        """The adapter must change the logits of a real row, or nothing measured here means anything."""
        row, base = self.snapshot.rows("validation")[0], self.evaluator.trunk.base
        rendered = render(base.tokenizer, base.settings, row.instruction, row.input, row.output)
        states = self.evaluator.trunk.states([rendered.tokens], 1)
        slot, trunk = self.evaluator.slot, self.evaluator.trunk
        slot.load(slot.fetch(self.store, adapter))
        applied = trunk.answer_logits(states, [len(rendered.prompt)])[0]
        with slot.switched_off():
            alone = trunk.answer_logits(states, [len(rendered.prompt)])[0]
        if not (applied - alone).abs().max().item() > 1e-4:
            raise EvaluationFailed("the tuned adapter does not change the model's output; it is not applied")

    def _recheck(self, pool: Pool, predictions: Mapping[str, Rows]) -> dict[str, Any]:
        """Predict a random sample of carried rows again; they must repeat, near ties excepted."""
        carried = [(name, i) for name, rows in predictions.items() for i, r in enumerate(rows) if r["carried"]]
        count = min(self.settings.evaluation.recheck_rows, len(carried))
        draw = random.Random(self.snapshot.digest).sample(carried, count)  # noqa: S311 - not cryptography
        ties: list[dict[str, Any]] = []
        entries = {e.name: e.task for e in pool.tasks()}
        for name in sorted({n for n, _ in draw}):
            queries, _ = self._route(pool, load_snapshot(self.store, entries[name]))
            chosen = [i for n, i in draw if n == name]
            for i, again in zip(chosen, self._predict([queries[i] for i in chosen], "recheck"), strict=True):
                row = predictions[name][i]
                if (again.text or "") == row["text"]:
                    continue
                if min(again.gap, row["gap"]) > self.settings.evaluation.tie_gap:
                    raise EvaluationFailed(
                        f"a carried prediction of {name} (row {row['row'][:12]}) does not repeat: {row['text']!r} "
                        f"before, {again.text!r} now, top-2 gap {again.gap:.3g}; run `lcia doctor`, the stored "
                        "adapter or the machine's arithmetic has changed"
                    )
                ties.append({"task": name, "row": row["row"], "before": row["text"], "again": again.text})
        return {"rows": count, "ties": ties}

    # -- objects ------------------------------------------------------------------------------------

    def _measurable(self, task: str) -> bool:
        return task == self.snapshot.digest or load_snapshot(self.store, task).task.retention.evaluation_rows

    def _store(self, name: str, rows: Rows, pool: Pool) -> str:
        known = {e.name: e.task for e in pool.tasks()}
        return self.store.put_json(
            {
                "kind": "predictions",
                "schema": 1,
                "task": known.get(name, self.snapshot.digest),
                "split": "test",
                "numerics": self.evaluator.trunk.base.numerics_digest,
                "rows": rows,
            }
        )

    def _read(self, digest: str) -> Rows:
        rows: Rows = self.store.get_json(digest)["rows"]
        return rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
