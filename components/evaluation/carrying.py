"""Test predictions of whole tasks under one version: routed, carried over where nothing changed, resumable.

A prediction is named by its key (prompt tokens, adapter, decoding contract, numerics). An example whose key the earlier
version's record already has keeps its prediction, and its row says from which object. Fresh predictions are written
to the work area in portions, so a killed evaluation continues with the next portion.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Self

from torch import Tensor

from components.evaluation.metrics import METRICS
from components.evaluation.prediction import Evaluator, Prediction, Progress, Query
from components.evaluation.scored import scored_rows, words_mark
from components.grouping.pool import Pool
from components.grouping.router import Router
from components.settings import Settings
from components.storage.keys import step_key
from components.storage.objects import ObjectStore, canonical, parse_json
from components.tasks.rows import Example, Unlabelled
from components.tasks.snapshot import Snapshot
from components.tuning.tuner import Checkpoints

Rows = list[dict[str, Any]]
PORTION = 4
"""Batches predicted between two writes to the work area."""
KEPT_ADAPTERS = 4
"""Adapters kept in memory between two calls."""


@dataclass(frozen=True)
class Version:
    """A pool with its router, which is fitted once."""

    pool: Pool
    router: Router
    adapters: Mapping[str | None, str | None]
    """By group id; None, the base model alone, has none."""

    @classmethod
    def of(cls, pool: Pool, settings: Settings) -> Self:
        """A pool, ready to route."""
        adapters: dict[str | None, str | None] = {group.id: group.adapter for group in pool.groups}
        return cls(pool, Router.of(pool, settings.grouping), {**adapters, None: None})

    def groups(self, rows: Sequence[Example | Unlabelled]) -> list[str | None]:
        """The group of each row, None if the base model answers alone; nobody is asked back."""
        return self.router.groups_of(rows)


@dataclass(frozen=True)
class Stored:
    """One task's test predictions in the store.

    `routes` names the object that says which instruction goes to which group (None in records of an earlier release).
    `proof` counts, per predictions object, the rows that rest on it; rows counted nowhere were predicted here.
    """

    predictions: str
    routes: str | None
    score: float
    rows: int
    proof: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """A task to predict; `earlier` holds rows of earlier versions, `what` is the label that people see."""

    snapshot: Snapshot
    what: str
    earlier: Sequence[Stored] = ()


@dataclass(frozen=True)
class Work:
    """Queries to predict; `what` is the label that people see."""

    queries: Sequence[Query]
    what: str


@dataclass
class Predictor:
    """Predicts tasks under versions, and counts what it predicted and what it carried over."""

    store: ObjectStore
    settings: Settings
    evaluator: Evaluator
    work: Checkpoints | None = None
    progress: Progress | None = None
    predicted_rows: int = 0
    carried_rows: int = 0
    _adapters: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def task(
        self,
        version: Version,
        snapshot: Snapshot,
        what: str,
        earlier: Sequence[Stored] = (),
        *,
        scores_only: bool = False,
    ) -> Rows:
        """Test predictions of one task, row by row; those whose key is those of `earlier` are carried over.

        With `scores_only` an answer that is known to score 0 is not decoded to its end: its text is None.
        """
        return self.tasks(version, [Ask(snapshot, what, earlier)], scores_only=scores_only)[0]

    def tasks(self, version: Version, asks: Sequence[Ask], *, scores_only: bool = False) -> list[Rows]:
        """The same for several tasks, which processes that share the work predict side by side."""
        drafts = [self._open(version, ask, scores_only=scores_only) for ask in asks]
        work = [Work([q for q in o.queries if q.key not in o.old], a.what) for a, o in zip(asks, drafts, strict=True)]
        predictions = self.fresh(work, scores_only=scores_only)
        return [self._rows(ask, each, iter(fresh)) for ask, each, fresh in zip(asks, drafts, predictions, strict=True)]

    def _open(self, version: Version, ask: Ask, *, scores_only: bool) -> "_Opened":
        examples = ask.snapshot.rows("test")
        groups = version.groups(examples)
        old: dict[str, dict[str, Any]] = {}
        for source in reversed(ask.earlier):  # of several that have a key the first counts
            rows = [{**row, "from": row.get("from") or source.predictions} for row in self.read(source)]
            old |= {row["key"]: row for row in rows if scores_only or row["text"] is not None}
        return _Opened(groups, self.queries(version, ask.snapshot, examples, groups), old)

    def _rows(self, ask: Ask, draft: "_Opened", predictions: Iterator[Prediction]) -> Rows:
        out: Rows = []
        for query, group in zip(draft.queries, draft.groups, strict=True):
            row = draft.old.get(query.key)
            if row is None:
                prediction = next(predictions)
                self.predicted_rows += 1
                text, gap, origin, cut = prediction.text, prediction.gap, None, prediction.cut
            else:
                self.carried_rows += 1
                text, gap, cut, origin = row["text"], row["gap"], row.get("cut", False), row["from"]
            score = score_of(ask.snapshot, query.example, text)
            out.append(
                {
                    "row": query.example.id,
                    "key": query.key,
                    "group": group,
                    "text": text,
                    "score": score,
                    "gap": gap,
                    "from": origin,
                    **({"cut": True} if cut else {}),
                }
            )
        return out

    def queries(
        self, version: Version, snapshot: Snapshot, examples: Sequence[Example], groups: Sequence[str | None]
    ) -> list[Query]:
        """Examples of a task with the adapters of their groups."""
        return [
            self.evaluator.query(snapshot.task, example, version.adapters[group])
            for example, group in zip(examples, groups, strict=True)
        ]

    def fresh(self, work: Sequence[Work], *, scores_only: bool = False) -> list[list[Prediction]]:
        """Predict queries, portion by portion of similar prompts; portions found in the work area are read.

        Processes that share the work take the portions in turn: what a portion gives depends on its queries alone.
        """
        portions = [portion for number, each in enumerate(work) for portion in self._portions(number, each)]
        ranks, in_turn = self.evaluator.trunk.base.ranks, not self.evaluator.trunk.base.is_sharded
        own = [k for k in range(len(portions)) if not in_turn or k % ranks.count == ranks.number]
        results = {k: self._portion(work[portions[k].work], portions[k], scores_only) for k in own}
        if in_turn and ranks.count > 1:
            messages = ranks.gather(canonical({str(k): [_values(p) for p in results[k]] for k in results}))
            others = [parse_json(messages[number]) for number in range(ranks.count) if number != ranks.number]
            results |= {int(k): [Prediction(*p) for p in each] for other in others for k, each in other.items()}
        out: list[dict[int, Prediction]] = [{} for _ in work]
        for k, portion in enumerate(portions):
            out[portion.work].update(zip(portion.members, results[k], strict=True))
        return [[each[i] for i in range(len(each))] for each in out]

    def put(self, snapshot: Snapshot, rows: Rows) -> Stored:
        """Store a task's predictions, and the group of each distinct instruction."""
        examples = snapshot.rows("test")
        texts = [*(row["text"] for row in rows), *(example.output for example in examples)]
        predictions = self.store.put_json(
            {
                "kind": "predictions",
                "schema": 1,
                "task": snapshot.digest,
                "split": "test",
                "numerics": self.evaluator.trunk.base.numerics_digest,
                "rows": rows,
                **words_mark(snapshot.task.metric, texts),
            }
        )
        went = dict(zip((e.instruction for e in examples), (row["group"] for row in rows), strict=True))
        routes = self.store.put_json({"kind": "routes", "schema": 1, "groups": went})
        proof = Counter(row["from"] for row in rows if row["from"])
        return Stored(predictions, routes, mean([row["score"] for row in rows]), len(rows), dict(sorted(proof.items())))

    def read(self, predictions: Stored) -> Rows:
        """The rows of a predictions object."""
        return scored_rows(self.store, predictions.predictions)

    def _portions(self, number: int, work: Work) -> list["_Portion"]:
        queries = work.queries
        order = sorted(range(len(queries)), key=lambda i: (queries[i].rendering.tokens, i))
        count = ceil(len(order) / (PORTION * self.evaluator.batch_rows))
        size = ceil(len(order) / count) if count else 1
        starts = range(0, len(order), size)
        words = [work.what if count == 1 else f"{work.what} {k}/{count}" for k in range(1, len(starts) + 1)]
        return [_Portion(number, order[s : s + size], label) for s, label in zip(starts, words, strict=True)]

    def _portion(self, work: Work, portion: "_Portion", scores_only: bool) -> list[Prediction]:
        queries = [work.queries[i] for i in portion.members]
        name = self._name(queries, scores_only) if self.work else ""
        content = self.work.read(name) if self.work else None
        if content is not None:
            return [Prediction(*values) for values in parse_json(content)]
        digests = {q.adapter for q in queries if q.adapter}
        if len(digests | self._adapters.keys()) > KEPT_ADAPTERS:
            self._adapters.clear()
        for digest in sorted(digests - self._adapters.keys()):
            self._adapters[digest] = self.evaluator.slot.fetch(self.store, digest)
        progress = self.progress
        report = (lambda phase, n, total: progress(f"{portion.words}, {phase}", n, total)) if progress else None
        predictions = self.evaluator.predict(queries, self._adapters, scores_only=scores_only, progress=report)
        if self.work:
            self.work.write(name, canonical([_values(p) for p in predictions]))
        return predictions

    def _name(self, queries: Sequence[Query], scores_only: bool) -> str:
        """Names a portion by all that its predictions depend on, the code included."""
        inputs = {"queries": [[q.key, q.example.output, q.task.metric] for q in queries]}
        config = {"scores_only": scores_only, "batch_rows": self.evaluator.batch_rows}
        return f"predicted-{step_key('predict', inputs, config, ('evaluation', 'model'))}.json"


@dataclass(frozen=True)
class _Opened:
    """A task's queries, the group of each, and earlier rows by key."""

    groups: list[str | None]
    queries: list[Query]
    old: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _Portion:
    """Places of queries that are predicted together, within work number `work`."""

    work: int
    members: list[int]
    words: str


def _values(prediction: Prediction) -> list[Any]:
    return [prediction.text, prediction.score, prediction.gap, prediction.cut]


def score_of(snapshot: Snapshot, example: Example, text: str | None) -> float:
    """The task's metric; an answer that was not decoded is known to score 0."""
    return METRICS[snapshot.task.metric](text, example.output) if text is not None else 0.0


def mean(values: Sequence[float]) -> float:
    """Their mean, 0 without any."""
    return sum(values) / len(values) if values else 0.0
