"""The work of the step `evaluate_forgetting`: choose the point, predict all tasks, carry over what cannot change.

A task none of whose instructions changed its group, and none of whose groups changed its adapter, keeps the champion's
predictions object as it is: that it is the same object is the proof, and it costs one small read. Rows of other
tasks keep their prediction where their key is the same (`carrying`). A random sample of all of them is predicted again
(`recheck`).
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from components.evaluation.carrying import Ask, Predictor, Stored, Version, Work, mean
from components.evaluation.choose import Point, PointChoice, choose_point
from components.evaluation.prediction import Evaluator, Progress
from components.evaluation.recheck import EvaluationFailed, recheck
from components.evaluation.scored import mean_score, with_present_scores
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
from components.tasks.task_file import EVALUATED
from components.tasks.wordings import with_wordings, wordings_of
from components.tuning.tuner import Checkpoints

CANARY_ROWS = 4
"""Rows on which the adapter is shown to do something at all; the largest logits in memory."""

__all__ = ["EvaluationFailed", "Forgetting", "ParentVersion"]


@dataclass(frozen=True)
class ParentVersion:
    """The parent version: its pool and evaluation record (None for the base model alone)."""

    digest: str | None
    pool: Pool
    evaluation: Mapping[str, Any] | None


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

    @cached_property
    def predictor(self) -> Predictor:
        """Predicts, carries over and counts."""
        return Predictor(self.store, self.settings, self.evaluator, self.work, self.progress)

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
        self._check_champion()
        self._canary(tuning["points"]["live"])
        points, before = self._validate(tuning)
        choice = choose_point(points, before, self.settings.evaluation.choice_margin)
        pool = self._candidate(tuning, choice.point.name, config)
        parent, candidate = (Version.of(p, self.settings) for p in (self.champion.pool, pool))
        champion = self._champion_predictions(parent)
        predictions, moves = self._predict(candidate, parent, champion)
        own = pool.group_of(self.snapshot.digest)
        routes = candidate.groups(self.snapshot.rows("test"))
        repeats = recheck(self.predictor, candidate, predictions, self.snapshot.digest)
        base = self.evaluator.trunk.base
        record = {
            "kind": "evaluation",
            "schema": 1,
            "task": self.snapshot.digest,
            "parent": self.champion.digest,
            "pool": self.store.put_json(pool.to_manifest()),
            "numerics": base.numerics,
            "numerics_digest": base.numerics_digest,
            "contract": self.evaluator.contract,
            "chosen": choice.point.name,
            "reason": choice.reason,
            "before": {name: mean(scores) for name, scores in before.items()},
            "points": [self._point_record(point, choice) for point in points],
            "validation": {
                "candidate": list(choice.point.new),
                "live": list(next(point.new for point in points if point.name == "live")),
            },
            "validation_rows": {name: len(scores) for name, scores in before.items()},
            "predictions": {n: task.predictions for n, task in predictions.items()},
            "routes": {n: task.routes for n, task in predictions.items()},
            "scores": {n: task.score for n, task in predictions.items()},
            "proofs": {n: {"rows": task.rows, "from": dict(task.proof)} for n, task in predictions.items()},
            "rerouted": moves,
            "champion": {n: task.predictions for n, task in champion.items()},
            "anchors": self._anchors(predictions),
            "not_measurable": [e.name for e in pool.tasks() if e.name not in predictions],
            "rewording": Rewording.of(candidate.router, parent.router, self.name).to_json(),
            "routing_share": sum(group == (own.id if own else None) for group in routes) / len(routes),
            "carried": self.predictor.carried_rows,
            "predicted": self.predictor.predicted_rows,
            "recheck": repeats,
        }
        return self.store.put_json(record)

    # -- choosing -----------------------------------------------------------------------------------

    def _validate(self, tuning: Mapping[str, Any]) -> tuple[list[Point], dict[str, list[float]]]:
        """Validation scores, row by row, of every point, and of the champion on the group's protected tasks."""
        group = self.champion.pool.group(tuning["group"]) if tuning["group"] else None
        tasks = [e for e in group.tasks if e.name not in self.replaced] if group else []
        entries = [e for e in tasks if self._measurable(e)]
        prior = {e.name: load_snapshot(self.store, e.task) for e in entries}
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

    # -- predicting ---------------------------------------------------------------------------------

    def _champion_predictions(self, parent: Version) -> dict[str, Stored]:
        """The champion's predictions on every measurable task, the new one included.

        They are taken over from its own record, or predicted again if the numerics have changed.
        """
        record, predictions = self.champion.evaluation, dict[str, Stored]()
        for entry in parent.pool.tasks():
            if not self._measurable(entry):
                continue
            if record is not None and self._comparable(record):
                predictions[entry.name] = self._predictions_of(record, entry.name)
            else:
                predictions[entry.name] = self._task(parent, entry.task, f"predict {entry.name}, champion")
        # Here only the score matters: a base model's long wrong answers need not be decoded to their end.
        new, what = self.snapshot.digest, f"predict {self.name}, champion"
        predictions[self.name] = self._task(parent, new, what, scores_only=True)
        return predictions

    def _predict(
        self, candidate: Version, parent: Version, champion: Mapping[str, Stored]
    ) -> tuple[dict[str, Stored], dict[str, list[dict[str, Any]]]]:
        """The candidate's predictions of all measurable tasks, and the prior rows that changed their group."""
        same = self._tasks_carried(candidate, parent, champion)
        entries = [entry for entry in candidate.pool.tasks() if entry.name in champion]
        asks = {e.name: self._ask(e, champion[e.name]) for e in entries if e.name not in same}
        fresh = dict(zip(asks, self.predictor.tasks(candidate, list(asks.values())), strict=True))
        predictions: dict[str, Stored] = {}
        moves: dict[str, list[dict[str, Any]]] = {}
        for entry in entries:
            name, old = entry.name, champion[entry.name]
            if name in same:
                self.predictor.carried_rows += old.rows
                predictions[name] = Stored(
                    old.predictions, old.routes, old.score, old.rows, {old.predictions: old.rows}
                )
                continue
            predictions[name] = self.predictor.put(asks[name].snapshot, fresh[name])
            changes = self._group_changes(old, predictions[name]) if asks[name].earlier else []
            if changes:
                moves[name] = changes
        return predictions, moves

    def _ask(self, entry: GroupTask, old: Stored) -> Ask:
        earlier = None if entry.task == self.snapshot.digest else old
        return Ask(load_snapshot(self.store, entry.task), f"predict {entry.name}, candidate", earlier)

    def _tasks_carried(self, candidate: Version, parent: Version, champion: Mapping[str, Stored]) -> set[str]:
        """Prior tasks whose every test instruction goes to the group it went to, under the adapter it had.

        Only instructions that a task has word by word: where others go depends on the row's input too.
        """
        record = self.champion.evaluation
        if record is None or record.get("contract") != self.evaluator.contract:
            return set()
        routes = {
            name: self.store.get_json(task.routes)["groups"]
            for name, task in champion.items()
            if name != self.name and task.routes
        }
        texts = list(dict.fromkeys(text for went in routes.values() for text in went))
        now = candidate.router.exact(texts)
        same = {group for group, adapter in parent.adapters.items() if candidate.adapters.get(group, "") == adapter}
        return {
            n
            for n, went in routes.items()
            if all(g is not None and now.get(t) == g and g in same for t, g in went.items())
        }

    def _task(self, version: Version, task: str, what: str, *, scores_only: bool = False) -> Stored:
        snapshot = load_snapshot(self.store, task)
        rows = self.predictor.task(version, snapshot, what, scores_only=scores_only)
        return self.predictor.put(snapshot, rows)

    def _group_changes(self, old: Stored, new: Stored) -> list[dict[str, Any]]:
        """Rows that went from one group to another, counted: a new group may steal prior examples."""
        pairs = zip(self.predictor.read(old), self.predictor.read(new), strict=True)
        moves = Counter((a["group"], b["group"]) for a, b in pairs if a["group"] != b["group"])
        return [{"from": a, "to": b, "rows": n} for (a, b), n in sorted(moves.items(), key=str)]

    # -- the champion -------------------------------------------------------------------------------

    def _comparable(self, record: Mapping[str, Any]) -> bool:
        return bool(record["numerics_digest"] == self.evaluator.trunk.base.numerics_digest)

    def _predictions_of(self, record: Mapping[str, Any], name: str) -> Stored:
        """A task's predictions as an evaluation record has them; an earlier release's knows no routes."""
        predictions, routes, proofs = (record.get(k, {}).get(name) for k in ("predictions", "routes", "proofs"))
        rows = proofs["rows"] if proofs else len(self.store.get_json(predictions)["rows"])
        present = with_present_scores(self.store, str(predictions))
        if present != predictions:
            return Stored(present, routes, mean_score(self.store.get_json(present)["rows"]), rows)
        return Stored(present, routes, record["scores"][name], rows)

    def _anchors(self, present: Mapping[str, Stored]) -> dict[str, dict[str, str | None]]:
        """Per task the predictions of the version that first promoted it; the new task's are this candidate's.

        `version` names that version (None: this one). Under new numerics its predictions are made again.
        """
        anchors: dict[str, dict[str, str | None]] = {}
        record = self.champion.evaluation
        for task, anchor in record["anchors"].items() if record else ():
            version, predictions = str(anchor["version"] or self.champion.digest), anchor["predictions"]
            if task in present:
                predictions = with_present_scores(self.store, predictions)
            if record and not self._comparable(record) and task in present:
                ancestor = Version.of(Pool.from_manifest(self.store.get_json(version)), self.settings)
                digest = next(e.task for e in self.champion.pool.tasks() if e.name == task)
                if ancestor.pool.base_model == self.champion.pool.base_model:  # else what was stored stands
                    predictions = self._task(ancestor, digest, f"predict {task}, anchor").predictions
            anchors[task] = {"version": version, "predictions": predictions}
        return {**anchors, self.name: {"version": None, "predictions": present[self.name].predictions}}

    def _measurable(self, entry: GroupTask) -> bool:
        """True if the evaluation rows and their predictions are there: allowed by the owner, and not erased since."""
        record = self.champion.evaluation
        earlier = record is not None and entry.task != record["task"]
        if earlier and record is not None and entry.name not in record["predictions"]:
            return False
        snapshot = load_snapshot(self.store, entry.task)
        rests_on = [snapshot.splits[split].object for split in EVALUATED]
        if record is not None and entry.name in record["predictions"]:
            rests_on += [record["predictions"][entry.name], record["anchors"][entry.name]["predictions"]]
        permission = earlier or snapshot.task.retention.evaluation_rows
        return permission and all(self.store.why_erased(digest) is None for digest in rests_on)

    # -- proofs -------------------------------------------------------------------------------------

    def _check_champion(self) -> None:
        pool, base = self.champion.pool, self.evaluator.trunk.base
        if pool.groups and pool.base_model != base.digest:
            raise EvaluationFailed(
                f"the champion was tuned on base model {pool.base_model[:12]}, the settings name "
                f"{base.settings.name} ({base.digest[:12]}); `lcia rebase` lets another model learn every task again"
            )

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
