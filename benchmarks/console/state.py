"""A large state without a model: a lineage of many versions as the worker would have left it, with drawn scores."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from components.audit.log import Actor
from components.gate.gate import decide_gate
from components.gate.inputs import GateEvidence, NewTask, PriorTask
from components.grouping.pool import GroupTask, Pool
from components.promotion import approvals, candidates, champion
from components.promotion.candidates import Candidate
from components.promotion.evidence import evidence_record, gate_evidence
from components.settings import load_settings
from components.storage.objects import digest_of
from components.tasks import queue
from components.tasks.package import Package
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot, load_snapshot, take_snapshot
from components.tasks.task_file import Task
from lcia.instance import Instance

SITE, WORKER, OPS = (Actor(name, assured=True, how="token") for name in ("north", "worker", "ops"))
STEPS, VALIDATION_ROWS, GROUP_SIZE, HIT, FLIP, FEW = 120, 100, 10, 0.8, 0.05, 2
"""Steps of a tuning run, rows of a validation split, tasks of a group, share of right answers, share that changes,
and rows that an ancestor's own predictions hold."""


@dataclass
class Lineage:
    """A state that grows by one promoted version a task."""

    instance: Instance
    rows: int
    """Test rows of a task."""

    def __post_init__(self) -> None:
        """An empty pool on a base model that nobody loads."""
        self.draw = random.Random(0)
        self.base = digest_of(b"base model")
        self.numerics = digest_of(b"numerics")
        self.pool = Pool.empty(self.instance.assistant, self.base)
        self.parent: str | None = None
        self.predictions: dict[str, str] = {}
        self.anchors: dict[str, dict[str, Any]] = {}
        self.scores: dict[str, float] = {}
        self.config = self.instance.store.put_json(self.instance.settings.content())

    def learn(self, number: int, *, changes_all: bool = False) -> Candidate:
        """A candidate that learnt one more task; `changes_all`: the predictions of every prior task are others."""
        instance, store = self.instance, self.instance.store
        name = f"task_{number:03d}"
        snapshot = self._snapshot(name)
        group = None if number % GROUP_SIZE == 0 else self.pool.groups[-1].id
        entry = GroupTask(snapshot.digest, name, (f"Do what task {number} asks.",))
        self.pool = self.pool.with_task(
            entry, group=group, adapter=self._adapter(number), curvature=None, parent=self.parent, config=self.config,
            router=dict(self.pool.router),
        )  # fmt: skip
        digest = store.put_json(self.pool.to_manifest())
        if changes_all:
            self._predict_again()
        rows = self.rows if changes_all else FEW
        before = {**self.predictions, name: self._predict(snapshot, 0.3, rows)}
        after = {each: self._changed(old) if changes_all else old for each, old in self.predictions.items()}
        after[name] = self._predict(snapshot, HIT, rows)
        self.anchors[name] = {"predictions": after[name], "version": None}
        evaluation = self._evaluation(digest, snapshot, before, after)
        tuning = self._tuning(snapshot, 0 if group is None else STEPS)
        assessment = self._assessment(snapshot, group, self.pool.groups[-1].id)
        with instance.db.read() as connection:
            item = queue.items(connection, instance.assistant, ("learning",))[-1].id
        if changes_all:
            evidence = gate_evidence(
                store, instance.settings, assessment, tuning, evaluation, attempt=1, drift_accepted=False
            )
        else:
            evidence = self._unchanged(snapshot)
        gate = decide_gate(evidence, instance.settings.policy.gate)
        report = store.put(b"<!doctype html><title>report</title>")
        record = evidence_record(
            evaluation, snapshot.digest, store.put_json(gate.to_json()), {"gate": report},
            evaluation=store.put_json(evaluation), assessment=store.put_json(assessment),
            tuning=store.put_json(tuning),
        )  # fmt: skip
        with instance.db.begin() as connection:
            candidate = candidates.register(
                connection, None, assistant=instance.assistant, digest=digest, task=snapshot.digest,
                task_name=f"{name}@1", parent=self.parent, evidence=store.put_json(record), verdict=gate.verdict,
                submitted_by=SITE.name, launched_by=WORKER.name, item=item,
            )  # fmt: skip
            queue.move(connection, None, item, "candidate", f"version {candidate.number}")
        self.anchors[name]["version"], self.predictions = digest, after
        return candidate

    def promote(self, candidate: Candidate) -> None:
        """Two people's decision."""
        instance = self.instance
        common = {
            "assistant": instance.assistant,
            "version": candidate.number,
            "actor": OPS,
            "policy": instance.settings.policy,
        }
        approvals.approve(instance.db, instance.store, **common, reason="evidence read")
        champion.promote(instance.db, instance.store, **common, reason="evidence read")
        self.parent = candidate.digest

    def _snapshot(self, name: str) -> Snapshot:
        """A task in the queue, being learnt."""
        sizes = {"train": 20, "validation": VALIDATION_ROWS, "test": self.rows}
        splits = {
            split: tuple(
                Example(f"Do what {name.replace('_', ' ')} asks.", f"{split} row {i} of {name}", f"answer {i}")
                for i in range(size)
            )
            for split, size in sizes.items()
        }
        task = Task(name=name, version="1", owner="north", description=name, licence="CC0-1.0")
        snapshot = take_snapshot(Package(Path(name), task, splits, ()), self.instance.store)
        with self.instance.db.begin() as connection:
            add_task(connection, self.instance.assistant, name, snapshot.digest, "assessing", "learning")
        return snapshot

    def _predict(self, snapshot: Snapshot, share: float, rows: int) -> str:
        made = [self._row(example.id, float(self.draw.random() < share)) for example in snapshot.rows("test")[:rows]]
        return self._put(snapshot.digest, made)

    def _predict_again(self) -> None:
        """Champion and anchors on every row, as after a change of numerics; of the ancestors pages read means."""
        for entry in self.pool.tasks()[:-1]:
            whole = self._predict(load_snapshot(self.instance.store, entry.task), HIT, self.rows)
            self.predictions[entry.name] = whole
            self.anchors[entry.name] = {**self.anchors[entry.name], "predictions": whole}

    def _changed(self, digest: str) -> str:
        """The same rows answered by another adapter: every key is new, and a few scores flip."""
        old = self.instance.store.get_json(digest)
        rows = [
            self._row(row["row"], 1 - row["score"] if self.draw.random() < FLIP else row["score"])
            for row in old["rows"]
        ]
        return self._put(old["task"], rows)

    def _row(self, row: str, score: float) -> dict[str, Any]:
        key = f"{self.draw.getrandbits(256):064x}"
        return {"from": None, "gap": self.draw.random(), "group": "g1", "key": key, "row": row, "score": score,
                "text": f"an answer of some words, {key[:20]}"}  # fmt: skip

    def _put(self, task: str, rows: list[dict[str, Any]]) -> str:
        """A predictions object; the mean score by its digest is remembered for the evaluation records."""
        record = {"kind": "predictions", "schema": 1, "split": "test", "task": task, "numerics": self.numerics,
                  "rows": rows}  # fmt: skip
        digest = self.instance.store.put_json(record)
        self.scores[digest] = sum(row["score"] for row in rows) / len(rows)
        return digest

    def _evaluation(
        self, digest: str, snapshot: Snapshot, before: dict[str, str], after: dict[str, str]
    ) -> dict[str, Any]:
        prior = {name: self.scores[one] for name, one in self.predictions.items()}
        hits = [float(self.draw.random() < HIT) for _ in range(VALIDATION_ROWS)]
        return {
            "kind": "evaluation", "schema": 1, "pool": digest, "parent": self.parent, "task": snapshot.digest,
            "anchors": {name: dict(anchor) for name, anchor in self.anchors.items()},
            "before": prior, "champion": before, "predictions": after, "chosen": "live",
            "points": [{"name": name, "new": HIT, "prior": prior} for name in ("live", "star")],
            "carried": self.rows * (len(after) - 1), "predicted": self.rows, "contract": digest_of(b"contract"),
            "not_measurable": [], "numerics": {}, "numerics_digest": self.numerics, "proofs": {}, "rerouted": {},
            "reason": "live: best validation score of the new task", "recheck": {"rows": 8, "ties": []},
            "routes": {}, "routing_share": 1.0, "validation": {"candidate": hits, "live": hits},
            "scores": {name: self.scores[one] for name, one in after.items()},
        }  # fmt: skip

    def _tuning(self, snapshot: Snapshot, steps: int) -> dict[str, Any]:
        series = [self.draw.random() for _ in range(min(steps, 60))]
        return {
            "kind": "tuning", "schema": 1, "task": snapshot.digest, "base_model": self.base, "group": None,
            "rule": "curvature" if steps else "none", "rows": 20, "rehearsed_rows": 0, "recalled_rows": 0,
            "fallback_share": 0.0, "fallbacks": {}, "kept_rows": None, "curvature": None, "numerics": {},
            "history": dict.fromkeys(("beta_low", "beta_median", "beta_high", "distance"), series),
            "losses": [self.draw.random() for _ in range(STEPS)], "old_losses": [], "points": {},
        }  # fmt: skip

    def _assessment(self, snapshot: Snapshot, group: str | None, into: str) -> dict[str, Any]:
        store, name = self.instance.store, snapshot.task.label
        grouping = {
            "action": "reuse" if group else "open", "group": into, "similarity": 0.7, "runner_up": 0.1, "margin": 0.6,
            "threshold": 0.5, "review_band": 0.04, "encoder": "tfidf", "rule": "similarity",
            "words": f"similarity 0.70 to {into} is at least 0.54: joins {into}.", "scores": [],
            "per_instruction": [{"group": into, "instruction": "Do it.", "similarity": 0.7, "runner_up": 0.1}],
        }  # fmt: skip
        validation = {"kind": "validation", "schema": 1, "name": name, "verdict": "pass", "checks": []}
        drift = {"kind": "drift", "schema": 1, "name": name, "verdict": "related", "reasons": ["as drawn"],
                 "effects": []}  # fmt: skip
        return {
            "kind": "assessment", "schema": 1, "task": snapshot.digest, "submitted_task": snapshot.digest,
            "parent": self.parent, "group": group, "grouping": grouping, "verdict": "learn", "reasons": [],
            "reports": {}, "estimate": {}, "validation": store.put_json(validation), "drift": store.put_json(drift),
        }  # fmt: skip

    def _unchanged(self, snapshot: Snapshot) -> GateEvidence:
        """Evidence of a version whose prior tasks are carried over."""
        groups = self.pool.groups_by_name()
        prior = tuple(
            PriorTask(each.name, each.task, groups[each.name], (), (), (), may_differ=False)
            for each in self.pool.tasks()
            if each.task != snapshot.digest
        )
        before, after = (tuple(float(self.draw.random() < share) for _ in range(self.rows)) for share in (0.3, HIT))
        return GateEvidence(prior, NewTask(snapshot.task.name, before, after, after, after))

    def _adapter(self, number: int) -> str:
        folder = self.instance.home / "adapter"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_bytes(f"weights {number}".encode())
        return self.instance.store.put_folder(folder)


def add_task(connection: Connection, assistant: str, name: str, task: str, *states: str) -> None:
    """A task that was submitted and went through `states`."""
    item = queue.submit(
        connection, assistant=assistant, package=task, task=task, name=name, version="1", owner="north",
        submitted_by=SITE,
    )  # fmt: skip
    for state in states:
        queue.move(connection, None, item.id, state, "as the benchmark says", launched_by=WORKER.name)


def build(home: Path, tasks: int, prior: int, rows: int) -> Instance:
    """`prior` promoted versions, one that waits, and cancelled tasks, `tasks` in all; a state that is there is kept."""
    exists = (home / "lcia.db").exists()
    instance = Instance.open(home, load_settings(None, (), {}, home))
    if exists:
        return instance
    lineage = Lineage(instance, rows)
    for number in range(prior):
        lineage.promote(lineage.learn(number))
    lineage.learn(prior, changes_all=True)
    with instance.db.begin() as connection:
        for number in range(prior + 1, tasks):
            name = f"other_{number:05d}"
            add_task(connection, instance.assistant, name, digest_of(name.encode()), "cancelled")
    return instance
