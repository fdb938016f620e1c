"""Which group an instruction belongs to: for a whole task at training, for one request at inference.

Similarity of two tasks is the cosine of their centroids, which equals the mean pairwise cosine of their
instructions divided by the geometric mean of each task's mean cosine to itself. So a task of paraphrases
matches itself with 1 (in the released code it can miss its own threshold: METHOD.md section 4). A group's
similarity is that of its nearest task. The encoder is fitted on the instructions of the whole pool and, when
a task is placed, on the task's too, exactly as the version that would follow from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from components.errors import LciaError
from components.grouping.encoder import TfidfEncoder
from components.grouping.pool import Assurance, Group, GroupTask, Pool, distinct_instructions
from components.settings import GroupingSettings

Action = Literal["reuse", "open", "hold"]

_DECIMALS = 6
_CHUNK = 4096


class RouterStateError(LciaError):
    """The router's state in a pool manifest is missing or not readable."""


class PlacementError(LciaError):
    """A task that cannot be placed as asked."""


@dataclass(frozen=True)
class Route:
    """Where one request goes: a group, or None for the base model. Similarities are cosines in [0, 1]."""

    group: str | None
    similarity: float
    runner_up: float
    nearest_task: str | None
    exact: bool


@dataclass(frozen=True)
class InstructionMatch:
    """How one instruction of the task compares with the groups there are."""

    instruction: str
    group: str | None
    similarity: float
    runner_up: float


@dataclass(frozen=True)
class GroupScore:
    """Similarity of the task to one group, and the group's task it is nearest to."""

    group: str
    similarity: float
    nearest_task: str


@dataclass(frozen=True)
class GroupingDecision:
    """What happens to a task: reuse `group`, open a new one (`group` is the id it would get), or hold."""

    action: Action
    group: str | None
    similarity: float
    runner_up: float
    margin: float
    threshold: float
    review_band: float
    rule: str
    scores: tuple[GroupScore, ...]
    per_instruction: tuple[InstructionMatch, ...]
    words: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, tuples as lists."""
        return {
            **asdict(self),
            "scores": [asdict(score) for score in self.scores],
            "per_instruction": [asdict(match) for match in self.per_instruction],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read back `to_json`."""
        return cls(
            **{
                **value,
                "scores": tuple(GroupScore(**score) for score in value["scores"]),
                "per_instruction": tuple(InstructionMatch(**match) for match in value["per_instruction"]),
            }
        )


def decide(
    pool: Pool, instructions: Sequence[str], settings: GroupingSettings, placed: str | None = None
) -> GroupingDecision:
    """Place a task, given the instructions of its rows (repetitions are dropped).

    `placed` is a person's answer to a hold: a group id, or `new`.

    Raises:
        PlacementError: no instructions, or `placed` names no group.
    """
    texts = distinct_instructions(instructions)
    if not texts:
        raise PlacementError("the task has no instruction, expected at least one row with one; check its splits")
    codebook = _Codebook.fit(pool.groups, extra=texts)
    centroid = _unit(np.asarray(codebook.encoder.encode(texts).mean(axis=0)).ravel())
    similarities = codebook.centroids @ centroid[codebook.columns]
    best_of, nearest = codebook.per_group(similarities[None, :])
    found = [
        GroupScore(group, _round(best_of[0, g]), codebook.names[nearest[0, g]])
        for g, group in enumerate(codebook.groups)
    ]
    order = sorted(found, key=lambda score: -score.similarity)
    best = order[0].similarity if order else 0.0
    second = order[1].similarity if len(order) > 1 else 0.0
    action, group, explanation = _rule(pool, order, settings, placed)
    return GroupingDecision(
        action=action,
        group=group,
        similarity=best,
        runner_up=second,
        margin=_round(best - second),
        threshold=settings.threshold,
        review_band=settings.review_band,
        rule=settings.rule if placed is None else "placed",
        scores=tuple(order),
        per_instruction=_match_each(texts, Router(codebook, threshold=0.0)),
        words=explanation,
    )


def extend(
    pool: Pool,
    entry: GroupTask,
    *,
    group: str | None,
    adapter: str,
    curvature: str | None,
    parent: str | None,
    config: str,
    settings: GroupingSettings,
    assurance: Assurance = "asserted",
    overrides: Sequence[str] = (),
) -> Pool:
    """The pool after `group` learnt a task (None opens one), its router fitted again on all instructions."""
    grown = pool.with_task(
        entry,
        group=group,
        adapter=adapter,
        curvature=curvature,
        parent=parent,
        config=config,
        router={},
        assurance=assurance,
        overrides=overrides,
    )
    return Pool.from_manifest({**grown.to_manifest(), "router": fit_state(grown.groups, settings)})


def fit_state(groups: Sequence[Group], settings: GroupingSettings) -> dict[str, Any]:
    """The router's state for the manifest: the fitted encoder and the threshold for single requests."""
    encoder = TfidfEncoder.fit(text for group in groups for entry in group.tasks for text in entry.instructions)
    return {
        "rule": settings.rule,
        "request_threshold": settings.request_threshold,
        "encoder": encoder.to_json(),
    }


class Router:
    """Routes single requests of one version. Imports no torch; thousands of requests take a second."""

    def __init__(self, codebook: "_Codebook", threshold: float) -> None:
        self._codebook = codebook
        self._threshold = threshold
        self._exact: dict[str, tuple[str, str]] = {}
        for group, name, texts in codebook.entries:
            for text in texts:
                self._exact.setdefault(_plain(text), (group, name))

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Self:
        """The router of a pool manifest.

        Raises:
            PoolError, RouterStateError, EncoderStateError: a manifest that cannot be read.
        """
        return cls.of(Pool.from_manifest(manifest))

    @classmethod
    def of(cls, pool: Pool) -> Self:
        """The router of a pool; one without groups routes everything to the base model."""
        if not pool.groups:
            return cls(_Codebook.fit(()), threshold=1.0)
        threshold, encoder = pool.router.get("request_threshold"), pool.router.get("encoder")
        if not isinstance(threshold, int | float) or not isinstance(encoder, Mapping):
            raise RouterStateError(
                f"the pool's router state has the keys {sorted(pool.router)}, expected "
                f"`request_threshold` and "
                "`encoder`; restore the manifest object from a backup"
            )
        return cls(_Codebook.of(pool.groups, TfidfEncoder.from_json(encoder)), float(threshold))

    def route(self, instruction: str) -> Route:
        """The group of one request's instruction, or None for the base model."""
        return self.route_many([instruction])[0]

    def route_many(self, instructions: Sequence[str]) -> list[Route]:
        """`route` for each, in order; an instruction of the codebook goes to the group that has it first."""
        known: dict[str, Route] = {}
        unseen = []
        for text in dict.fromkeys(instructions):
            hit = self._exact.get(_plain(text))
            if hit is None:
                unseen.append(text)
            else:
                known[text] = Route(hit[0], 1.0, 0.0, hit[1], exact=True)
        for start in range(0, len(unseen), _CHUNK):
            known.update(self._nearest(unseen[start : start + _CHUNK]))
        return [known[text] for text in instructions]

    def nearest(self, texts: Sequence[str]) -> list[Route]:
        """Routes by similarity alone, without the codebook's exact hits."""
        found = self._nearest(list(dict.fromkeys(texts)))
        return [found[text] for text in texts]

    def _nearest(self, texts: Sequence[str]) -> dict[str, Route]:
        book = self._codebook
        if not book.groups or not texts:
            return {text: Route(None, 0.0, 0.0, None, exact=False) for text in texts}
        rows = book.encoder.encode(texts)[:, book.columns]
        best, task = book.per_group(np.asarray(rows @ book.centroids.T))
        routes = {}
        for i, text in enumerate(texts):
            order = np.argsort(-best[i], kind="stable")
            similarity = _round(best[i, order[0]])
            second = _round(best[i, order[1]]) if len(order) > 1 else 0.0
            chosen = book.groups[order[0]] if similarity >= self._threshold and similarity > 0 else None
            routes[text] = Route(chosen, similarity, second, book.names[task[i, order[0]]], exact=False)
        return routes


@dataclass(frozen=True)
class _Codebook:
    """Unit centroids of all tasks over the columns any of them uses: (tasks, columns)."""

    encoder: TfidfEncoder
    entries: tuple[tuple[str, str, tuple[str, ...]], ...]
    groups: tuple[str, ...]
    members: NDArray[np.int64]
    columns: NDArray[np.int64]
    centroids: NDArray[np.float64]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for _, name, _ in self.entries)

    @classmethod
    def fit(cls, groups: Sequence[Group], extra: Sequence[str] = ()) -> "_Codebook":
        texts = [text for group in groups for entry in group.tasks for text in entry.instructions]
        return cls.of(groups, TfidfEncoder.fit([*texts, *extra]))

    @classmethod
    def of(cls, groups: Sequence[Group], encoder: TfidfEncoder) -> "_Codebook":
        entries = tuple((group.id, entry.name, entry.instructions) for group in groups for entry in group.tasks)
        encoded = [encoder.encode(texts) for _, _, texts in entries]
        used = [matrix.indices for matrix in encoded]
        columns = np.unique(np.concatenate(used)) if used else np.zeros(0, dtype=np.int64)
        centroids = np.zeros((len(entries), len(columns)))
        for i, matrix in enumerate(encoded):
            centroids[i] = _unit(np.asarray(matrix[:, columns].mean(axis=0)).ravel())
        ids = tuple(group.id for group in groups)
        members = np.array([ids.index(group) for group, _, _ in entries], dtype=np.int64)
        return cls(encoder, entries, ids, members, columns, centroids)

    def per_group(self, similarities: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Best similarity of each group and the task it comes from: two arrays (texts, groups)."""
        best = np.zeros((len(similarities), len(self.groups)))
        task = np.zeros((len(similarities), len(self.groups)), dtype=np.int64)
        for g in range(len(self.groups)):
            tasks = np.flatnonzero(self.members == g)
            part = similarities[:, tasks]
            task[:, g] = tasks[part.argmax(axis=1)]
            best[:, g] = part.max(axis=1)
        return best, task


def _rule(
    pool: Pool, order: Sequence[GroupScore], settings: GroupingSettings, placed: str | None
) -> tuple[Action, str | None, str]:
    if placed is not None:
        return _placed(pool, placed)
    if settings.rule == "single" and pool.groups:
        first = pool.groups[0].id
        return "reuse", first, f"grouping.rule=single: joins {first}, as every task does."
    if settings.rule == "per_task" or not order:
        why = "grouping.rule=per_task" if settings.rule == "per_task" else "the pool has no group yet"
        return _open(pool, order, settings, why)
    best = order[0]
    nearest = f"{best.similarity:.2f} to {best.group} (nearest task {best.nearest_task})"
    low = settings.threshold - settings.review_band
    high = settings.threshold + settings.review_band
    if best.similarity >= high:
        return "reuse", best.group, f"similarity {nearest} is at least {high:.2f}: joins {best.group}."
    if best.similarity > low:
        words = (
            f"similarity {nearest} is inside the review band ({low:.2f} to {high:.2f}): a person has to say "
            f"whether it joins {best.group} or opens a group (grouping.threshold, grouping.review_band)."
        )
        return "hold", best.group, words
    return _open(pool, order, settings, f"similarity {nearest} is at most {low:.2f}")


def _placed(pool: Pool, placed: str) -> tuple[Action, str | None, str]:
    new = pool.next_group_id()
    if placed == "new":
        return "open", new, f"a person decided: opens group {new}."
    if placed not in {group.id for group in pool.groups}:
        known = ", ".join(group.id for group in pool.groups) or "none yet"
        raise PlacementError(f"group {placed!r} is not in the pool, expected `new` or one of: {known}")
    return "reuse", placed, f"a person decided: joins group {placed}."


def _open(
    pool: Pool, order: Sequence[GroupScore], settings: GroupingSettings, why: str
) -> tuple[Action, str | None, str]:
    if len(pool.groups) < settings.max_groups:
        new = pool.next_group_id()
        return "open", new, f"{why}: opens group {new}."
    cap = f"{why}, but the pool has {len(pool.groups)} groups, the cap grouping.max_groups"
    if settings.at_cap == "nearest" and order:
        return (
            "reuse",
            order[0].group,
            f"{cap}: joins the nearest, {order[0].group} (grouping.at_cap=nearest).",
        )
    return "hold", None, f"{cap}: a person has to place it or raise the cap (grouping.at_cap=hold)."


def _match_each(texts: Sequence[str], router: Router) -> tuple[InstructionMatch, ...]:
    return tuple(
        InstructionMatch(text, route.group, route.similarity, route.runner_up)
        for text, route in zip(texts, router.nearest(texts), strict=True)
    )


def _plain(text: str) -> str:
    return " ".join(text.split())


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector


def _round(value: float) -> float:
    return round(min(max(float(value), 0.0), 1.0), _DECIMALS)
