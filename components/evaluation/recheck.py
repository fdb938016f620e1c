"""Stored predictions against fresh ones: a random sample in each run, all of a version in `reevaluate`.

A fresh prediction may differ from a stored one only if the two best tokens (or choices) lie closer together than
`evaluation.tie_gap`: batches of other shapes round differently. Such near ties are listed.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.errors import LciaError
from components.evaluation.carrying import Predictor, Rows, Stored, Version, Work, score_of
from components.evaluation.scored import scored_rows
from components.grouping.pool import Pool
from components.storage.objects import ObjectStore
from components.tasks.snapshot import load_snapshot


class EvaluationFailed(LciaError):
    """The predictions cannot be trusted; nothing was registered."""


@dataclass(frozen=True)
class Mismatch:
    """A stored prediction that a fresh one does not repeat.

    `what`: `text`; `score` (equal text, scored otherwise); `key` (made for another prompt, adapter or decoding);
    `proof` (the object it rests on does not hold it). `gaps` are the stored and the fresh smallest top-2 logit gap.
    """

    task: str
    row: str
    what: str
    before: str | None
    again: str | None
    gaps: tuple[float, float]
    near_tie: bool

    def __str__(self) -> str:
        """Without the texts: this goes into reasons and the log, which outlive the rows."""
        return (
            f"{self.task} (row {self.row[:12]}): another {self.what} than before, "
            f"top-2 gaps {self.gaps[0]:.3g} and {self.gaps[1]:.3g}"
        )


def compare(task: str, earlier: Rows, fresh: Rows, tie_gap: float) -> list[Mismatch]:
    """Differences between two lists of the same rows."""
    mismatches = []
    for old, new in zip(earlier, fresh, strict=True):
        what = next((field for field in ("key", "text", "score") if old[field] != new[field]), None)
        if what:
            gaps = (float(old["gap"]), float(new["gap"]))
            tie = what == "text" and min(gaps) <= tie_gap
            mismatches.append(Mismatch(task, old["row"], what, old["text"], new["text"], gaps, tie))
    return mismatches


def recheck(predictor: Predictor, version: Version, predictions: Mapping[str, Stored], seed: str) -> dict[str, Any]:
    """Predict a random sample of carried rows again; gives its size and the near ties that differed.

    Raises:
        EvaluationFailed: one does not repeat.
    """
    settings = predictor.settings.evaluation
    read: dict[str, Rows] = {}
    candidates: list[tuple[str, int]] = []
    for name, task in predictions.items():
        count = sum(task.proof.values())
        if count == task.rows:  # all of them, so the rows need not be read
            candidates += [(name, i) for i in range(count)]
        elif count:
            read[name] = predictor.read(task)
            candidates += [(name, i) for i, row in enumerate(read[name]) if row["from"]]
    draw = random.Random(seed).sample(candidates, min(settings.recheck_rows, len(candidates)))  # noqa: S311 - no cryptography
    tasks = {entry.name: entry.task for entry in version.pool.tasks()}
    ties: list[dict[str, Any]] = []
    for name in sorted({n for n, _ in draw}):
        rows = read.get(name) or predictor.read(predictions[name])
        sample = sorted(i for n, i in draw if n == name)
        fresh = _again(predictor, version, tasks[name], sample)
        for mismatch in compare(name, [rows[i] for i in sample], fresh, settings.tie_gap):
            if not mismatch.near_tie:
                raise EvaluationFailed(
                    f"a carried prediction does not repeat: {mismatch}; the stored adapter or the machine's arithmetic "
                    "has changed: `lcia reevaluate` predicts all rows of the champion again"
                )
            ties.append({"task": name, "row": mismatch.row, "gaps": list(mismatch.gaps)})
    return {"rows": len(draw), "ties": ties}


def _again(predictor: Predictor, version: Version, task: str, sample: Sequence[int]) -> Rows:
    snapshot = load_snapshot(predictor.store, task)
    examples = [snapshot.rows("test")[i] for i in sample]
    groups = version.groups(examples)
    queries = predictor.queries(version, snapshot, examples, groups)
    return [
        {"key": q.key, "text": p.text, "score": score_of(snapshot, q.example, p.text), "gap": p.gap}
        for q, p in zip(queries, predictor.fresh([Work(queries, "recheck")])[0], strict=True)
    ]


@dataclass(frozen=True)
class Reevaluation:
    """Comparison of the stored predictions of a version with fresh ones."""

    tasks: int
    rows: int
    carried_rows: int
    mismatches: tuple[Mismatch, ...]

    @property
    def ok(self) -> bool:
        """True if everything repeats, near ties excepted."""
        return all(mismatch.near_tie for mismatch in self.mismatches)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        mismatches = [{**asdict(mismatch), "gaps": list(mismatch.gaps)} for mismatch in self.mismatches]
        return {
            "tasks": self.tasks,
            "rows": self.rows,
            "carried": self.carried_rows,
            "ok": self.ok,
            "mismatches": mismatches,
        }


def reevaluate(predictor: Predictor, evaluation: Mapping[str, Any]) -> Reevaluation:
    """Predict every test row of a version again and compare; stored predictions serve for the comparison alone.

    Raises:
        EvaluationFailed: the record was made under other numerics, so that a difference would prove nothing.
    """
    base, store = predictor.evaluator.trunk.base, predictor.store
    if evaluation["numerics_digest"] != base.numerics_digest:
        changes = [f"{k} {v}, now {base.numerics.get(k)}" for k, v in evaluation["numerics"].items()
                if v != base.numerics.get(k)]  # fmt: skip
        raise EvaluationFailed(
            f"the version was evaluated under other numerics ({'; '.join(changes)}), so differences would prove "
            "nothing; run this where it was evaluated, or learn a task: under new numerics all is predicted again"
        )
    version = Version.of(Pool.from_manifest(store.get_json(evaluation["pool"])), predictor.settings)
    tie_gap, mismatches, rows, carried_rows = predictor.settings.evaluation.tie_gap, [], 0, 0
    tasks = {entry.name: entry.task for entry in version.pool.tasks()}
    digests = evaluation["predictions"]
    predictions = {name: digest for name, digest in digests.items() if store.why_erased(digest) is None}
    for name, digest in predictions.items():
        earlier = scored_rows(store, digest)
        fresh = predictor.task(version, load_snapshot(store, tasks[name]), f"predict {name}")
        mismatches += compare(name, earlier, fresh, tie_gap) + unproven(store, name, earlier)
        rows += len(earlier)
        carried_rows += sum(evaluation.get("proofs", {}).get(name, {}).get("from", {}).values())
    return Reevaluation(len(predictions), rows, carried_rows, tuple(mismatches))


def unproven(store: ObjectStore, name: str, rows: Rows) -> list[Mismatch]:
    """Carried rows that the predictions object they name does not hold with the same key, text and gap."""
    origins = {
        origin: {row["key"]: row for row in store.get_json(origin)["rows"]}
        for origin in sorted({row["from"] for row in rows if row.get("from")})
    }
    mismatches = []
    for row in rows:
        origin = row.get("from")
        first = origins[origin].get(row["key"], {}) if origin else row
        if (first.get("text"), first.get("gap")) != (row["text"], row["gap"]):
            gaps = (float(row["gap"]), float(first.get("gap") or 0))
            mismatches.append(Mismatch(name, row["row"], "proof", row["text"], first.get("text"), gaps, near_tie=False))
    return mismatches
