"""The tasks that a champion has learnt: their predictions under it and under a candidate, carried over where nothing
can have changed.

A task none of whose instructions changed its group, and none of whose groups changed its adapter, keeps the champion's
predictions object as it is: that it is the same object is the proof, and it costs one small read. Rows of other
tasks keep their prediction where their key is the same (`carrying`).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from components.evaluation.carrying import Ask, Predictor, Stored, Version
from components.evaluation.recheck import EvaluationFailed
from components.evaluation.scored import mean_score, with_present_scores
from components.grouping.pool import GroupTask, Pool
from components.settings import Settings
from components.storage.objects import ObjectStore
from components.tasks.snapshot import load_snapshot
from components.tasks.task_file import EVALUATED


@dataclass(frozen=True)
class ParentVersion:
    """The parent version: its pool and evaluation record (None for the base model alone)."""

    digest: str | None
    pool: Pool
    evaluation: Mapping[str, Any] | None


@dataclass(frozen=True)
class PriorTasks:
    """Tasks of the champion that a candidate is compared on."""

    predictor: Predictor
    champion: ParentVersion
    origin: Mapping[str, Any] | None = None
    """Evaluation record of the version that this one carries over to another parent."""

    @property
    def store(self) -> ObjectStore:
        """The store of all records."""
        return self.predictor.store

    @property
    def settings(self) -> Settings:
        """Settings of the run."""
        return self.predictor.settings

    def check_champion(self) -> None:
        """The champion's adapters must fit the base model at hand.

        Raises:
            EvaluationFailed: they were tuned on another.
        """
        pool, base = self.champion.pool, self.predictor.evaluator.trunk.base
        if pool.groups and pool.base_model != base.digest:
            raise EvaluationFailed(
                f"the champion was tuned on base model {pool.base_model[:12]}, the settings name "
                f"{base.settings.name} ({base.digest[:12]}); `lcia rebase` lets another model learn every task again"
            )

    def under_champion(self, parent: Version) -> dict[str, Stored]:
        """The champion's predictions on every measurable task, by name.

        They are taken over from its own record, or predicted again if the numerics have changed.
        """
        record, predictions = self.champion.evaluation, dict[str, Stored]()
        for entry in parent.pool.tasks():
            if not self.is_measurable(entry):
                continue
            if record is not None and self._comparable(record):
                predictions[entry.name] = self._predictions_of(record, entry.name)
            else:
                predictions[entry.name] = self.predict(parent, entry.task, f"predict {entry.name}, champion")
        return predictions

    def under_candidate(
        self, candidate: Version, parent: Version, champion: Mapping[str, Stored], new: str | None = None
    ) -> tuple[dict[str, Stored], dict[str, list[dict[str, Any]]]]:
        """The candidate's predictions of all tasks in `champion`, and the prior rows that changed their group.

        `new` is the name of the task that the candidate learnt, if it learnt one.
        """
        same = self._tasks_carried(candidate, parent, {n: task for n, task in champion.items() if n != new})
        entries = [entry for entry in candidate.pool.tasks() if entry.name in champion]
        asks = {
            e.name: self._ask(e, [] if e.name == new else [champion[e.name]]) for e in entries if e.name not in same
        }
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
            changes = self._group_changes(old, predictions[name]) if name != new else []
            if changes:
                moves[name] = changes
        return predictions, moves

    def _ask(self, entry: GroupTask, earlier: list[Stored]) -> Ask:
        before = self._before("predictions", entry.task)
        return Ask(load_snapshot(self.store, entry.task), f"predict {entry.name}, candidate", [*earlier, *before])

    def _before(self, which: str, task: str) -> list[Stored]:
        """A task's predictions in `which` part of the record that is carried over, if it is there."""
        if self.origin is None:
            return []
        digest = self.origin[which].get(self._names_before.get(task))
        if digest is None or self.store.why_erased(digest) is not None:
            return []
        return [Stored(digest, None, 0.0, len(self.store.get_json(digest)["rows"]))]

    def _tasks_carried(self, candidate: Version, parent: Version, champion: Mapping[str, Stored]) -> set[str]:
        """Prior tasks whose every test instruction goes to the group it went to, under the adapter it had.

        Only instructions that a task has word by word: where others go depends on the row's input too.
        """
        record = self.champion.evaluation
        if record is None or record.get("contract") != self.predictor.evaluator.contract:
            return set()
        routes = {name: self.store.get_json(task.routes)["groups"] for name, task in champion.items() if task.routes}
        texts = list(dict.fromkeys(text for went in routes.values() for text in went))
        now = candidate.router.exact(texts)
        same = {group for group, adapter in parent.adapters.items() if candidate.adapters.get(group, "") == adapter}
        return {
            n
            for n, went in routes.items()
            if all(g is not None and now.get(t) == g and g in same for t, g in went.items())
        }

    @cached_property
    def _names_before(self) -> dict[str, str]:
        """Name of each task in the record that is carried over, by its digest."""
        assert self.origin is not None  # noqa: S101 - asked only where there is one
        pool = Pool.from_manifest(self.store.get_json(self.origin["pool"]))
        return {entry.task: entry.name for entry in pool.tasks()}

    def predict(self, version: Version, task: str, what: str, *, scores_only: bool = False) -> Stored:
        """Predict a task's test rows under a version; see `Predictor.task`."""
        snapshot = load_snapshot(self.store, task)
        before = self._before("champion", task) if scores_only else []
        rows = self.predictor.task(version, snapshot, what, before, scores_only=scores_only)
        return self.predictor.put(snapshot, rows)

    def _group_changes(self, old: Stored, new: Stored) -> list[dict[str, Any]]:
        """Rows that went from one group to another, counted: a new group may steal prior examples."""
        pairs = zip(self.predictor.read(old), self.predictor.read(new), strict=True)
        moves = Counter((a["group"], b["group"]) for a, b in pairs if a["group"] != b["group"])
        return [{"from": a, "to": b, "rows": n} for (a, b), n in sorted(moves.items(), key=str)]

    def _comparable(self, record: Mapping[str, Any]) -> bool:
        return bool(record["numerics_digest"] == self.predictor.evaluator.trunk.base.numerics_digest)

    def _predictions_of(self, record: Mapping[str, Any], name: str) -> Stored:
        """A task's predictions as an evaluation record has them; an earlier release's knows no routes."""
        predictions, routes, proofs = (record.get(k, {}).get(name) for k in ("predictions", "routes", "proofs"))
        rows = proofs["rows"] if proofs else len(self.store.get_json(predictions)["rows"])
        present = with_present_scores(self.store, str(predictions))
        if present != predictions:
            return Stored(present, routes, mean_score(self.store.get_json(present)["rows"]), rows)
        return Stored(present, routes, record["scores"][name], rows)

    def anchors(self, present: Mapping[str, Stored]) -> dict[str, dict[str, str | None]]:
        """Per task the predictions of the version that first promoted it.

        `version` names that version. Under new numerics its predictions are made again.
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
                    predictions = self.predict(ancestor, digest, f"predict {task}, anchor").predictions
            anchors[task] = {"version": version, "predictions": predictions}
        return anchors

    def is_measurable(self, entry: GroupTask) -> bool:
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

    def record(
        self,
        pool: Pool,
        champion: Mapping[str, Stored],
        predictions: Mapping[str, Stored],
        moves: Mapping[str, list[dict[str, Any]]],
    ) -> dict[str, Any]:
        """The part of an evaluation record that says what a candidate `pool` predicts, and what that rests on."""
        base = self.predictor.evaluator.trunk.base
        return {
            "kind": "evaluation",
            "schema": 1,
            "parent": self.champion.digest,
            "pool": self.store.put_json(pool.to_manifest()),
            "numerics": base.numerics,
            "numerics_digest": base.numerics_digest,
            "contract": self.predictor.evaluator.contract,
            "predictions": {n: task.predictions for n, task in predictions.items()},
            "routes": {n: task.routes for n, task in predictions.items()},
            "scores": {n: task.score for n, task in predictions.items()},
            "proofs": {n: {"rows": task.rows, "from": dict(task.proof)} for n, task in predictions.items()},
            "rerouted": dict(moves),
            "champion": {n: task.predictions for n, task in champion.items()},
            "not_measurable": [entry.name for entry in pool.tasks() if entry.name not in predictions],
            "carried": self.predictor.carried_rows,
            "predicted": self.predictor.predicted_rows,
        }
