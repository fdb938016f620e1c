"""Routing of instructions to groups: of a whole task at training, of one request at inference.

Similarity of two tasks is the cosine of their centroids, which equals the mean pairwise cosine of their
instructions divided by the geometric mean of each task's mean cosine to itself. So a task of paraphrases
matches itself with 1 (in the authors' released code it can miss its own threshold). A group's similarity is that
of its nearest task. The encoder is fitted on the instructions of the whole pool and, when a task is placed, on
the task's too, exactly as the version that would follow from it. Nothing here imports torch unless the encoder
is a sentence model.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from components.errors import LciaError
from components.grouping.codebook import Codebook, centroid, six_digits, texts_of
from components.grouping.encoders import Thresholds, fit_encoder, read_encoder, thresholds
from components.grouping.inputs import evidence
from components.grouping.pool import Assurance, Group, GroupTask, Pool, distinct_instructions
from components.grouping.route import UNROUTED, Route
from components.grouping.tfidf import TfidfEncoder
from components.settings import Fallback, GroupingSettings

Action = Literal["reuse", "open", "hold"]

_CHUNK = 4096
_STEPS = 10_000
"""Steps of a threshold between 0 and 1."""
_INSTRUCTION, _LINES = 32768, 64
"""Characters and lines of a text in which its instruction is looked for."""


class RouterStateError(LciaError):
    """The router's state in a pool manifest is missing or not readable."""


class PlacementError(LciaError):
    """A task that cannot be placed as asked."""


class RowTexts(Protocol):
    """A row of a task, as far as it is routed."""

    @property
    def instruction(self) -> str:
        """The text that says what to do."""

    @property
    def input(self) -> str | None:
        """The text that it is about, if any."""


@dataclass(frozen=True)
class InstructionMatch:
    """Comparison of one instruction of the task with the groups there are."""

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
    """Placement of a task: reuse `group`, open a new one (`group` is the id it would get), or hold."""

    action: Action
    group: str | None
    similarity: float
    runner_up: float
    margin: float
    threshold: float
    review_band: float
    encoder: str
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


def decide(
    pool: Pool, instructions: Sequence[str], settings: GroupingSettings, placement: str | None = None
) -> GroupingDecision:
    """Place a task, given the instructions of its rows (repetitions are dropped).

    `placement` is a person's answer to a hold: a group id, or `new`.

    Raises:
        PlacementError: no instructions, or `placement` names no group.
    """
    texts = distinct_instructions(instructions)
    if not texts:
        raise PlacementError("the task has no instruction, expected at least one row with one; check its splits")
    codebook = Codebook.fit(pool.groups, settings, texts, pool.precedence())
    bounds = thresholds(settings, codebook.encoder.kind)
    rows = codebook.encode(texts)
    similarities = codebook.similarities(centroid(rows)[None, :])
    nothing = np.zeros((len(texts), len(codebook.entries)))
    nearest = [codebook.nearest_of(similarities[0], g) for g in range(len(codebook.groups))]
    scores = [
        GroupScore(group, six_digits(similarity), codebook.entries[task][1])
        for group, similarity, task in zip(codebook.groups, codebook.per_group(similarities)[0], nearest, strict=True)
    ]
    places = sorted(range(len(scores)), key=lambda g: (-scores[g].similarity, -codebook.ranks[nearest[g]]))
    order = [scores[g] for g in places]
    best = order[0].similarity if order else 0.0
    second = order[1].similarity if len(order) > 1 else 0.0
    action, group, explanation = _rule(pool, order, settings, bounds, placement)
    return GroupingDecision(
        action=action,
        group=group,
        similarity=best,
        runner_up=second,
        margin=six_digits(best - second),
        threshold=bounds.threshold,
        review_band=bounds.review_band,
        encoder=codebook.encoder.kind,
        rule=settings.rule if placement is None else "placed",
        scores=tuple(order),
        per_instruction=tuple(
            InstructionMatch(text, route.group, route.similarity, route.runner_up)
            for text, route in zip(texts, codebook.routes(rows, nothing, [0.0] * len(texts)), strict=True)
        ),
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
    learnt: Sequence[str] | None = None,
    without_claim: Collection[str] = (),
) -> Pool:
    """The pool after `group` learnt a task (None opens one), its router fitted again on all instructions.

    What several tasks have in common goes to the newest of them that no other replaces: `learnt` names the tasks of
    `pool`, oldest first (default: as it says itself, else in its order), `without_claim` those that others replace.
    """
    if learnt is None:
        learnt = pool.router.get("learnt") or [task.name for task in pool.tasks()]
    larger = pool.with_task(
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
    return refit(larger, settings, [*learnt, entry.name], without_claim)


def refit(pool: Pool, settings: GroupingSettings, learnt: Sequence[str], without_claim: Collection[str] = ()) -> Pool:
    """The pool with a router fitted on its groups as they are; `learnt` and `without_claim` are as in `extend`."""
    state = {**fit_state(pool.groups, settings), "learnt": list(learnt), "replaced": sorted(without_claim)}
    return replace(pool, router=state)


def fit_state(groups: Sequence[Group], settings: GroupingSettings) -> dict[str, Any]:
    """The router's state for the manifest: the fitted encoder and the thresholds for single requests.

    Unless the settings name one, a threshold is conformal: the least at which at most `grouping.general_share` of the
    packaged general requests are let in, alone, or each with an input as one of the tasks has them. Those of each
    language count by themselves: to a model that doesn't know a pool's language all texts in it look alike.
    """
    encoder = fit_encoder(settings, texts_of(groups))
    alone = with_input = settings.request_threshold
    if alone is None:
        alone, with_input = _thresholds(Codebook.of(groups, encoder), settings.general_share)
    return {
        "rule": settings.rule,
        "request_threshold": alone,
        "input_threshold": with_input,
        "general_share": settings.general_share,
        "fallback": settings.fallback,
        "margin": settings.margin,
        "encoder": encoder.to_json(),
    }


def _thresholds(codebook: Codebook, share: float) -> tuple[float, float]:
    """Thresholds of requests alone and with an input: the highest over the languages of the general requests."""
    bounds = []
    for rows in (codebook.encoder.general(), *codebook.encoder.foreign()):
        similarities = codebook.similarities(codebook.narrow(rows))
        penalties = evidence(codebook.inputs.typical_log_ratios(len(similarities)))
        bounds.append([lets_in(scores.max(axis=1), share) for scores in (similarities, similarities + penalties)])
    alone, with_input = np.max(bounds, axis=0).tolist()
    return alone, with_input


def lets_in(scores: NDArray[np.float64], share: float) -> float:
    """The least threshold of four digits that at most `share` of the scores reach (split conformal prediction).

    A sentence model's last bits depend on the texts that it reads at once: at more digits the same version, made by
    another process, would now and then have another digest.
    """
    order = np.sort(scores)[::-1]
    last = float(order[min(int(share * len(order)), len(order) - 1)])
    return min(max((math.floor(last * _STEPS) + 1) / _STEPS, 1 / _STEPS), 1.0)


class Router:
    """Routes single requests of one version. With TF-IDF thousands of requests take a second."""

    def __init__(
        self,
        codebook: Codebook,
        thresholds: tuple[float, float],
        fallback: Fallback = "answer",
        margin: float = 0.0,
    ) -> None:
        """`thresholds` are those of requests alone and of requests with an input."""
        self.codebook = codebook
        self.threshold, self._with_input = thresholds
        self._fallback, self._margin = fallback, margin
        self._exact: dict[str, tuple[str, str]] = {}
        for place in sorted(range(len(codebook.entries)), key=lambda i: -codebook.ranks[i]):
            group, name, texts = codebook.entries[place]
            for text in texts:
                self._exact.setdefault(_plain(text), (group, name))

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], settings: GroupingSettings | None = None) -> Self:
        """The router of a pool manifest; see `of`.

        Raises:
            PoolError, RouterStateError, EncoderStateError: a manifest that cannot be read.
        """
        return cls.of(Pool.from_manifest(manifest), settings)

    @classmethod
    def of(cls, pool: Pool, settings: GroupingSettings | None = None) -> Self:
        """The router of a pool; one without groups routes everything to the base model.

        Everything that decides is in the pool. Of `settings` only `encoder_model` is read: where the sentence model
        lies that the pool names.
        """
        if not pool.groups:
            return cls(Codebook.of((), TfidfEncoder.fit(())), (1.0, 1.0))
        threshold, state = pool.router.get("request_threshold"), pool.router.get("encoder")
        with_input = pool.router.get("input_threshold", threshold)  # earlier releases read no input
        if not isinstance(threshold, int | float) or not isinstance(state, Mapping):
            raise RouterStateError(
                f"the pool's router state has the keys {sorted(pool.router)}, expected `request_threshold` and "
                "`encoder`; restore the manifest object from a backup"
            )
        encoder = read_encoder(state, settings or GroupingSettings())
        return cls(
            Codebook.of(pool.groups, encoder, precedence=pool.precedence()),
            (float(threshold), float(with_input)),
            pool.router.get("fallback", "answer"),
            float(pool.router.get("margin", 0.0)),
        )

    def route(self, instruction: str, text: str | None = None, fallback: Fallback | None = None) -> Route:
        """The group of one request's instruction and input, or None for the base model."""
        return self.route_many([instruction], [text], fallback)[0]

    def route_instruction(self, text: str, first_part: str | None = None, fallback: Fallback | None = None) -> Route:
        """The route of a text that begins with an instruction and may go on with an input.

        The longest beginning that ends with a line and is in the codebook is the instruction; else `first_part`, else
        the first line. The rest is the input.
        """
        lines = text.strip()[:_INSTRUCTION].split("\n")[:_LINES]
        for count in range(len(lines), 0, -1):
            hit = self._hit("\n".join(lines[:count]))
            if hit:
                return hit
        instruction = first_part or lines[0]
        return self.route(instruction, text.strip()[len(instruction.strip()) :].strip() or None, fallback)

    def route_many(
        self,
        instructions: Sequence[str],
        inputs: Sequence[str | None] | None = None,
        fallback: Fallback | None = None,
    ) -> list[Route]:
        """`route` for each, in order; an instruction of the codebook goes to the task that has the claim on it.

        `fallback` stands in for the version's own.
        """
        requests = list(zip(instructions, inputs or [None] * len(instructions), strict=True))
        routes: dict[tuple[str, str | None], Route] = {}
        unseen = []
        for request in dict.fromkeys(requests):
            hit = self._hit(request[0])
            if hit is None:
                unseen.append(request)
            else:
                routes[request] = hit
        for start in range(0, len(unseen), _CHUNK):
            routes.update(self._nearest(unseen[start : start + _CHUNK]))
        return [routes[request].resolve(fallback or self._fallback, self._margin) for request in requests]

    def choice_of(self, text: str, between: tuple[str, str]) -> Route | None:
        """The route to the one of two tasks that a text names, after the caller was asked; None if it names none."""
        matches = [name for name in between if _plain(name).lower() in _plain(text).lower()]
        groups = {name: group for group, name, _ in self.codebook.entries}
        return Route(groups[matches[0]], 1.0, 0.0, matches[0], exact=True) if len(matches) == 1 else None

    def general_routes(self) -> list[Route]:
        """Routes of the packaged general requests, which belong to no task."""
        rows = self.codebook.narrow(self.codebook.encoder.general())
        number = rows.shape[0]
        nothing = np.zeros((number, len(self.codebook.entries)))
        return self.codebook.routes(rows, nothing, [self.threshold] * number)

    def exact(self, instructions: Sequence[str]) -> dict[str, str]:
        """Group of each instruction that a task has word by word; such a request goes there whatever its input."""
        hits = {text: self._exact.get(_plain(text)) for text in instructions}
        return {text: hit[0] for text, hit in hits.items() if hit}

    def groups_of(self, rows: Sequence[RowTexts]) -> list[str | None]:
        """The group of each row of a task, None if the base model answers alone; nobody is asked back."""
        instructions, inputs = [row.instruction for row in rows], [row.input for row in rows]
        return [route.group for route in self.route_many(instructions, inputs, "answer")]

    def _hit(self, text: str) -> Route | None:
        """The route of an instruction of the codebook."""
        entry = self._exact.get(_plain(text))
        return Route(entry[0], 1.0, 0.0, entry[1], exact=True) if entry else None

    def _nearest(self, requests: Sequence[tuple[str, str | None]]) -> dict[tuple[str, str | None], Route]:
        book = self.codebook
        if not book.groups or not requests:
            return dict.fromkeys(requests, UNROUTED)
        penalties = book.evidence([text for _, text in requests])
        thresholds = [self._with_input if text and text.strip() else self.threshold for _, text in requests]
        routes = book.routes(book.encode([instruction for instruction, _ in requests]), penalties, thresholds)
        return dict(zip(requests, routes, strict=True))


def _rule(
    pool: Pool, order: Sequence[GroupScore], settings: GroupingSettings, bounds: Thresholds, placement: str | None
) -> tuple[Action, str | None, str]:
    if placement is not None:
        return _by_person(pool, placement)
    if settings.rule == "single" and pool.groups:
        first = pool.groups[0].id
        return "reuse", first, f"grouping.rule=single: joins {first}, as every task does."
    if settings.rule == "per_task" or not order:
        why = "grouping.rule=per_task" if settings.rule == "per_task" else "the pool has no group yet"
        return _open(pool, order, settings, why)
    best = order[0]
    nearest = f"{best.similarity:.2f} to {best.group} (nearest task {best.nearest_task})"
    low = bounds.threshold - bounds.review_band
    high = bounds.threshold + bounds.review_band
    if best.similarity >= high:
        return "reuse", best.group, f"similarity {nearest} is at least {high:.2f}: joins {best.group}."
    if best.similarity > low:
        words = (
            f"similarity {nearest} is inside the review band ({low:.2f} to {high:.2f}): a person has to say "
            f"whether it joins {best.group} or opens a group (grouping.threshold, grouping.review_band)."
        )
        return "hold", best.group, words
    return _open(pool, order, settings, f"similarity {nearest} is at most {low:.2f}")


def _by_person(pool: Pool, placement: str) -> tuple[Action, str | None, str]:
    new = pool.next_group_id()
    if placement == "new":
        return "open", new, f"a person decided: opens group {new}."
    if placement not in {group.id for group in pool.groups}:
        ids = ", ".join(group.id for group in pool.groups) or "none yet"
        raise PlacementError(f"group {placement!r} is not in the pool, expected `new` or one of: {ids}")
    return "reuse", placement, f"a person decided: joins group {placement}."


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
    return "hold", None, f"{cap}: a person has to place it or raise the cap (grouping.at_cap={settings.at_cap})."


def _plain(text: str) -> str:
    return " ".join(text.split())
