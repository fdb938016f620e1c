"""Versions that were carried over to another parent: what people who read the version before have to read again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.evaluation.history import has_predictions
from components.evaluation.scored import scored_rows
from components.grouping.pool import Pool
from components.storage.objects import Json, ObjectStore

Record = Mapping[str, Any]


@dataclass(frozen=True)
class CarryOver:
    """A version beside the one that it carries over."""

    digest: str
    """Of the version before."""
    verdict: str
    """The gate's verdict on it."""
    rows: int
    """Test rows of tasks that both have."""
    differing: int
    """Those of them that have another answer now."""
    same_verdict: bool

    @property
    def nothing_new(self) -> bool:
        """True if every answer and the gate's verdict are what people read before."""
        return self.same_verdict and self.differing == 0

    def to_json(self) -> dict[str, Json]:
        """Plain JSON."""
        return {**vars(self), "nothing_new": self.nothing_new}


def carry_over(store: ObjectStore, evidence: Record) -> CarryOver | None:
    """The comparison of a version with the one that it carries over, by its evidence; None if it carries over none."""
    if "origin" not in evidence:
        return None
    before = store.get_json(evidence["origin"])
    rows = differing = 0
    earlier, later = _predictions(store, before), _predictions(store, evidence)
    proofs = store.get_json(evidence["evaluation"])["proofs"]
    for task in earlier.keys() & later.keys():
        name, digest = later[task]
        rows += proofs[name]["rows"]
        if earlier[task][1] != digest:  # the same object has the same answers
            old, new = (_answers(store, one) for one in (earlier[task][1], digest))
            differing += sum(old.get(row) != text for row, text in new.items())
    verdicts = [store.get_json(record["gate"])["verdict"] for record in (before, evidence)]
    return CarryOver(before["candidate"], verdicts[0], rows, differing, verdicts[0] == verdicts[1])


def _predictions(store: ObjectStore, evidence: Record) -> dict[str, tuple[str, str]]:
    """Task -> its name and its predictions object, of every task whose predictions are kept."""
    evaluation = store.get_json(evidence["evaluation"])
    tasks = {entry.name: entry.task for entry in Pool.from_manifest(store.get_json(evidence["candidate"])).tasks()}
    return {
        tasks[name]: (name, digest)
        for name, digest in evaluation["predictions"].items()
        if name in tasks and has_predictions(store, evaluation, name)
    }


def _answers(store: ObjectStore, predictions: str) -> dict[str, str | None]:
    """Test row -> answer."""
    return {row["row"]: row["text"] for row in scored_rows(store, predictions)}
