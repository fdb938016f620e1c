"""The work of the step `evaluate_forgetting`: choose the point, predict all tasks, carry over what cannot change.

A random sample of what was carried over is predicted again (`recheck`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from components.evaluation.carrying import Predictor, Version, Work, mean
from components.evaluation.choose import Point, PointChoice, choose_point
from components.evaluation.prediction import Evaluator, Progress
from components.evaluation.prior_tasks import ParentVersion, PriorTasks
from components.evaluation.recheck import EvaluationFailed, recheck
from components.grouping.codebook import texts_of
from components.grouping.encoders import fit_encoder
from components.grouping.input_profile import InputProfile
from components.grouping.order import learnt_order
from components.grouping.pool import GroupTask, Pool
from components.grouping.rewording import Rewording
from components.grouping.router import extend
from components.model.prompts import render
from components.settings import Settings, changed_keys
from components.storage.objects import ObjectStore
from components.tasks.rows import Example
from components.tasks.sampling import sample_rows
from components.tasks.snapshot import Snapshot, load_snapshot
from components.tasks.wordings import with_wordings, wordings_of
from components.tuning.tuner import Checkpoints

CANARY_ROWS = 4
"""Rows on which the adapter is shown to do something at all; the largest logits in memory."""

__all__ = ["EvaluationFailed", "Forgetting", "ParentVersion"]


@dataclass
class Forgetting:
    """One evaluation of a candidate. `work` is where an interrupted one finds what it had predicted."""

    store: ObjectStore
    settings: Settings
    evaluator: Evaluator
    champion: ParentVersion
    snapshot: Snapshot
    progress: Progress | None = None
    work: Checkpoints | None = None
    replaced: Collection[str] = ()
    """Names of the champion's tasks that others replace: shown, but not protected."""
    origin: Mapping[str, Any] | None = None
    """Evaluation record of a version with the same tuning, made on another parent: what still holds is carried over."""

    @cached_property
    def predictor(self) -> Predictor:
        """Predicts, carries over and counts."""
        return Predictor(self.store, self.settings, self.evaluator, self.work, self.progress)

    @cached_property
    def prior(self) -> PriorTasks:
        """The champion's tasks."""
        return PriorTasks(self.predictor, self.champion, self.origin)

    @cached_property
    def name(self) -> str:
        """Name of the new task in the pool: `name`, or `name@version` beside an earlier version of it."""
        task = self.snapshot.task
        return task.label if any(e.name == task.name for e in self.champion.pool.tasks()) else task.name

    def run(self, tuning: Mapping[str, Any], config: str) -> str:
        """Evaluate one tuning record; returns the evaluation record's digest.

        Raises:
            EvaluationFailed: an adapter without effect, or a carried prediction that does not repeat.
        """
        self.prior.check_champion()
        self._canary(tuning["points"]["live"])
        choice = self._choice_of_origin(tuning, config) or self._choice(tuning)
        pool = self._candidate(tuning, choice["chosen"], config)
        parent, candidate = (Version.of(p, self.settings) for p in (self.champion.pool, pool))
        champion = self.prior.under_champion(parent)
        # Here only the score matters: a base model's long wrong answers need not be decoded to their end.
        new, what = self.snapshot.digest, f"predict {self.name}, champion"
        champion[self.name] = self.prior.predict(parent, new, what, scores_only=True)
        predictions, moves = self.prior.under_candidate(candidate, parent, champion, self.name)
        anchors = self.prior.anchors(predictions)
        anchors[self.name] = {"version": None, "predictions": predictions[self.name].predictions}
        own = pool.group_of(self.snapshot.digest)
        routes = candidate.groups(self.snapshot.rows("test"))
        repeats = recheck(self.predictor, candidate, predictions, self.snapshot.digest)
        record = {
            **self.prior.record(pool, champion, predictions, moves),
            "task": self.snapshot.digest,
            **choice,
            "anchors": anchors,
            "rewording": Rewording.of(candidate.router, parent.router, self.name).to_json(),
            "routing_share": sum(group == (own.id if own else None) for group in routes) / len(routes),
            "recheck": repeats,
        }
        return self.store.put_json(record)

    # -- choosing -----------------------------------------------------------------------------------

    def _choice(self, tuning: Mapping[str, Any]) -> dict[str, Any]:
        """The part of the record about the point on the curve."""
        points, before = self._validate(tuning)
        choice = choose_point(points, before, self.settings.evaluation.choice_margin)
        return {
            "chosen": choice.point.name,
            "reason": choice.reason,
            "before": {name: mean(scores) for name, scores in before.items()},
            "points": [self._point_record(point, choice) for point in points],
            "validation": {
                "candidate": list(choice.point.new),
                "live": list(next(point.new for point in points if point.name == "live")),
            },
            "validation_rows": {name: len(scores) for name, scores in before.items()},
        }

    def _choice_of_origin(self, tuning: Mapping[str, Any], config: str) -> dict[str, Any] | None:
        """The same part as `origin` has it, if the same tasks were asked under the same settings and numerics."""
        record = self.origin
        if record is None:
            return None
        evaluator, made_with = self.evaluator, Pool.from_manifest(self.store.get_json(record["pool"])).config
        same_model = (record["numerics_digest"], record["contract"]) == (
            evaluator.trunk.base.numerics_digest,
            evaluator.contract,
        )
        same_tasks = record["before"].keys() == {entry.name for entry in self._tasks_to_protect(tuning)}
        if not same_model or not same_tasks or made_with is None:
            return None
        now, then = (self.store.get_json(digest)["evaluation"] for digest in (config, made_with))
        names = ("chosen", "reason", "before", "points", "validation", "validation_rows")
        return {name: record[name] for name in names} if now == then else None

    def _tasks_to_protect(self, tuning: Mapping[str, Any]) -> list[GroupTask]:
        """Tasks of the group that was tuned whose validation rows are to show what the tuning did to them."""
        group = self.champion.pool.group(tuning["group"]) if tuning["group"] else None
        tasks = [entry for entry in group.tasks if entry.name not in self.replaced] if group else []
        return [entry for entry in tasks if self.prior.is_measurable(entry)]

    def _validate(self, tuning: Mapping[str, Any]) -> tuple[list[Point], dict[str, list[float]]]:
        """Validation scores, row by row, of every point, and of the champion on the group's protected tasks."""
        group = self.champion.pool.group(tuning["group"]) if tuning["group"] else None
        prior = {entry.name: load_snapshot(self.store, entry.task) for entry in self._tasks_to_protect(tuning)}
        names = sorted(tuning["points"], key=lambda n: (n != "ema", n == "live", n))  # protected first: they win ties
        own = {self.name: self.snapshot}
        trials = [(None, n, s, group.adapter) for n, s in prior.items()] if group else []
        trials += [(p, n, s, tuning["points"][p]) for p in names for n, s in (own | prior).items()]
        results = self.predictor.fresh([self._choosing(s, a) for _, _, s, a in trials], scores_only=True)
        scores = {(p, n): [m.score for m in each] for (p, n, _, _), each in zip(trials, results, strict=True)}
        points = [Point(p, scores[p, self.name], {n: scores[p, n] for n in prior}) for p in names]
        return points, {n: scores[None, n] for n in prior}

    def _choosing(self, snapshot: Snapshot, adapter: str) -> Work:
        rows = self._sample(snapshot, self.settings.evaluation.validation_rows)
        return Work([self.evaluator.query(snapshot.task, row, adapter) for row in rows], "choose")

    def _sample(self, snapshot: Snapshot, limit: int | None) -> list[Example]:
        """Validation rows drawn at random, the same in each run."""
        seed = f"{snapshot.digest} {self.settings.tuning.seed}"
        return sample_rows(snapshot.rows("validation"), limit, seed)

    @staticmethod
    def _point_record(point: Point, choice: PointChoice) -> dict[str, Any]:
        scores = {"new": mean(list(point.new)), "prior": {name: mean(list(rows)) for name, rows in point.prior.items()}}
        loss = choice.losses.get(point.name)
        return {"name": point.name, **scores, **({"loss": loss.to_json()} if loss else {})}

    def _candidate(self, tuning: Mapping[str, Any], point: str, config: str) -> Pool:
        entry = GroupTask(
            self.snapshot.digest,
            self.name,
            self.snapshot.instructions(),
            tuning["kept_rows"],
            has_inputs=any(row.input or row.images for row in self.snapshot.rows("train")),
            kept_questions=tuning.get("kept_questions"),
            wordings=wordings_of(self.snapshot.task),
            inputs=self._typical_inputs(),
        )
        return extend(
            with_wordings(self.store, self.champion.pool),
            entry,
            group=tuning["group"],
            adapter=tuning["points"][point],
            curvature=tuning["curvature"],
            parent=self.champion.digest,
            config=config,
            settings=self.settings.grouping,
            overrides=changed_keys(self.settings),
            learnt=learnt_order(self.store, self.champion.pool),
            without_claim=self.replaced,
        )

    def _typical_inputs(self) -> InputProfile | None:
        """Sums over the training rows' inputs; none where the owner lets no training row be kept."""
        if not self.snapshot.task.retention.train_rows:
            return None
        texts = [*texts_of(self.champion.pool.groups), *self.snapshot.instructions()]
        encoder = fit_encoder(self.settings.grouping, texts)  # of the whole pool: `auto` goes by all its texts
        return encoder.profile([row.input or "" for row in self.snapshot.rows("train")])

    @torch.no_grad()
    def _canary(self, adapter: str) -> None:
        """The adapter must change the logits of a real row, or nothing measured here means anything."""
        base, trunk, slot = self.evaluator.trunk.base, self.evaluator.trunk, self.evaluator.slot
        examples = [
            render(base.reader, base.settings, row.instruction, row.input, row.output, row.images)
            for row in self._sample(self.snapshot, CANARY_ROWS)
        ]
        states = trunk.states([example.tokens for example in examples], CANARY_ROWS)
        lengths = [len(example.prompt) for example in examples]
        slot.load(slot.fetch(self.store, adapter))
        with_adapter = trunk.answer_logits(states, lengths)
        with slot.switched_off():
            alone = trunk.answer_logits(states, lengths)
        changes = [(one - other).abs().max() for one, other in zip(with_adapter, alone, strict=True)]
        if not torch.stack(changes).max().item() > 1e-4:
            raise EvaluationFailed("the tuned adapter does not change the model's output; it is not applied")
