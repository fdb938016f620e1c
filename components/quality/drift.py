"""Drift of a new task: is it known, related, new, or so unlike its group that a person must look?

Effect sizes with intervals, not p-values: with enough rows any two tasks differ "significantly". The reference is the
group that the router proposes, or all earlier tasks if it proposes none: rows that are ordinary in one group may be
foreign to another. A task is `known` if a classifier can't tell its questions from an earlier task's, `related` if its
inputs or its instructions are close to one, else `new`. `extreme` holds it: its lengths, scripts or difficulty for the
base model are far from everything in the reference.

Cold start: without kept rows of an earlier task there is nothing to be far from. The verdict is `new`, and only the
measure that needs no other task is taken: training rows that are unlike the task's own evaluation rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from components.quality.admixture import DRAWN, LEAST_ROWS, unlike_rows
from components.quality.omissions import Omission, as_records
from components.quality.samples import Effect, Read, Sample, closeness, compare, effect, reach
from components.quality.two_samples import instruction_similarities
from components.settings import DriftSettings
from components.tasks.snapshot import Snapshot

Verdict: TypeAlias = Literal["known", "related", "new", "extreme"]

EVERYTHING = "all earlier tasks"
OWN_ROWS = "its own evaluation rows"
MAX_COMPARED = 8
"""Most earlier tasks that the classifier runs against, the most similar ones first."""
MAX_ROWS_SHOWN = 20

ADVICE: Mapping[Verdict, str] = {
    "known": "learn it only if the champion does it worse than the task it resembles",
    "related": "learn it; tasks of its group are measured again and protected",
    "new": "learn it; it has nothing in common with earlier tasks that it could use or harm by its data",
    "extreme": "a person has to look at the rows: release the task if they are meant, or mend and submit it again",
}


@dataclass(frozen=True)
class GroupProposal:
    """The group that the router would put the task into, by the digests of its tasks; none: a group of its own."""

    group: str | None = None
    tasks: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """The group as a reference of measures."""
        return f"its group {self.group}"


@dataclass(frozen=True)
class DriftResult:
    """Verdict of the check, with reasons and advice."""

    task: str
    name: str
    verdict: Verdict
    nearest: str | None
    """`name@version` of the closest earlier task."""
    nearest_task: str | None
    """Its task digest."""
    effects: tuple[Effect, ...]
    reasons: tuple[str, ...]
    advice: str
    unlike_rows: tuple[int, ...] = ()
    """Training rows (from 1) unlike the evaluation rows, if there are more than by chance; the first 20."""
    not_checked: tuple[Omission, ...] = ()
    """Measures that could not be taken."""

    def to_json(self) -> dict[str, Any]:
        """A canonical JSON object."""
        value = asdict(self)
        for name in ("effects", "reasons", "unlike_rows"):
            value[name] = list(value[name])
        return {"kind": "drift", "schema": 1, **value, "not_checked": as_records(self.not_checked)}


def check_drift(
    snapshot: Snapshot,
    prior: Sequence[Snapshot],
    settings: DriftSettings,
    seed: int = 0,
    proposal: GroupProposal | None = None,
    read: Read | None = None,
    unread: str = "no base model was given",
) -> DriftResult:
    """Compare a task's training rows with its group and with every earlier task whose rows are kept.

    `prior` is in the order of learning. `read` is the base model; without it difficulty is not measured, and `unread`
    gives the reason.

    Raises:
        ObjectMissing, ObjectCorrupt: rows of this task are gone or damaged.
    """
    joins = proposal or GroupProposal()
    current = Sample(snapshot.task.label, snapshot.digest, snapshot.rows("train"), snapshot.instructions())
    samples = [sample for earlier in prior if earlier.digest != snapshot.digest if (sample := Sample.of(earlier))]
    unlike, rows, odd = _admixture(snapshot, current, seed)
    omissions = [*_without_rows(snapshot, prior, samples), *(() if unlike else (_too_few_rows(),))]
    if any(len(row.images) > 1 for row in current.rows):
        omissions.append(Omission("drift of further images", "only the first image of a row is compared"))
    if not samples:
        alone = "no earlier task to compare with: everything is new to an empty assistant"
        return DriftResult(
            current.digest,
            current.label,
            "new",
            None,
            None,
            unlike,
            (alone, *odd),
            "learn it",
            unlike_rows=rows,
            not_checked=tuple(omissions),
        )
    similar = dict(
        zip(
            (sample.label for sample in samples),
            instruction_similarities(current.instructions, [sample.instructions for sample in samples]),
            strict=True,
        )
    )
    versions = _versions(snapshot, prior, samples)
    order = sorted(samples, key=lambda sample: (-similar[sample.label], sample.label))
    peers = {sample.label: sample for sample in [*order[:MAX_COMPARED], *versions[:1], *versions[-1:]]}
    by_label = {label: compare(current, sample, similar[label], seed) for label, sample in peers.items()}
    nearest = max(by_label, key=lambda label: closeness(by_label[label]))
    own = [sample for sample in samples if sample.digest in joins.tasks]
    span, label = (own, joins.label) if own else (samples, EVERYTHING)
    effects = [*by_label[nearest].values()]
    if own and own != [peers[nearest]]:
        effects += compare(current, Sample.together(label, own), None, seed).values()
    far = reach(current, span, label, read, settings.model_rows, seed)
    if "surprise" not in far:
        why = unread if read is None else "quality.drift.model_rows is 0"
        omissions.append(Omission("difficulty for the base model", why))
    if len(peers) < len(samples):
        why = f"only the {len(peers)} most similar of {len(samples)} earlier tasks are told apart row by row"
        omissions.append(Omission("drift against every earlier task", why))
    verdict, words = _decide(by_label[nearest], far, settings)
    slide = _slide(versions, by_label, settings)
    if slide and verdict == "known":
        verdict = "related"
    for other, other_effects in by_label.items():
        if other != nearest:
            effects += [other_effects["question_auc"], other_effects["instructions"]]
    return DriftResult(
        task=current.digest,
        name=current.label,
        verdict=verdict,
        nearest=nearest,
        nearest_task=peers[nearest].digest,
        effects=(*effects, *far.values(), *unlike),
        reasons=(*words, *slide, *odd),
        advice=ADVICE[verdict],
        unlike_rows=rows,
        not_checked=tuple(omissions),
    )


def _without_rows(snapshot: Snapshot, prior: Sequence[Snapshot], samples: Sequence[Sample]) -> list[Omission]:
    """The omission that names earlier tasks without kept rows, if there are any."""
    with_rows = {sample.digest for sample in samples}
    labels = [one.task.label for one in prior if one.digest not in with_rows and one.digest != snapshot.digest]
    return [Omission("drift", f"no rows of {', '.join(labels)} are kept to compare with")] if labels else []


def _too_few_rows() -> Omission:
    return Omission("rows unlike the rest", f"fewer than {LEAST_ROWS} rows in train or in validation and test")


def _versions(snapshot: Snapshot, prior: Sequence[Snapshot], samples: Sequence[Sample]) -> list[Sample]:
    """Earlier versions of the task, oldest first: those of its name, and what it supersedes in turn."""
    labels = {earlier.task.label for earlier in prior if earlier.task.name == snapshot.task.name}
    parents = {earlier.task.label: earlier.task.supersedes for earlier in prior}
    before = snapshot.task.supersedes
    while before is not None and before not in labels:
        labels.add(before)
        before = parents.get(before)
    return [sample for sample in samples if sample.label in labels]


def _slide(
    versions: Sequence[Sample], by_label: Mapping[str, Mapping[str, Effect]], settings: DriftSettings
) -> list[str]:
    """Words if a site's versions moved far in small steps: like the last one, but no longer like the first."""
    if len(versions) < 2:
        return []
    first, last = versions[0].label, versions[-1].label
    total, step = by_label[first]["question_auc"], by_label[last]["question_auc"]
    if total.low is None or step.low is None or total.low <= settings.known_auc or step.low > settings.known_auc:
        return []
    words = (
        f"small steps add up: it can hardly be told from {last} (ROC area {step.value:.3f}), but from {first} it can "
        f"({total.value:.3f}); tests of {first} say little about what this site sends now"
    )
    return [words]


def _admixture(
    snapshot: Snapshot, current: Sample, seed: int
) -> tuple[tuple[Effect, ...], tuple[int, ...], tuple[str, ...]]:
    """The measure, rows and words of training rows that are unlike the task's own evaluation rows."""
    rng = np.random.default_rng(seed)
    inputs = current.inputs()
    order = rng.permutation(len(inputs))[:DRAWN]
    evaluation = [row.subject for row in (*snapshot.rows("validation"), *snapshot.rows("test"))]
    reference = [evaluation[index] for index in rng.permutation(len(evaluation))[:DRAWN]]
    unlike = unlike_rows(reference, [inputs[index] for index in order], seed)
    if unlike is None:
        return (), (), ()
    measure = effect("unlike_rows", unlike.excess, OWN_ROWS)
    if unlike.excess.low <= 0:
        return (measure,), (), ()
    rows = tuple(int(order[place]) + 1 for place in unlike.rows[:MAX_ROWS_SHOWN])
    words = (
        f"{unlike.excess.value:.0%} more of the training rows than of the evaluation rows are unlike the rest; look at "
        f"training rows {', '.join(map(str, rows[:8]))}"
    )
    return (measure,), rows, (words,)


def _decide(
    nearest: Mapping[str, Effect], far: Mapping[str, Effect], settings: DriftSettings
) -> tuple[Verdict, list[str]]:
    words = _extreme(far, settings)
    if words:
        return "extreme", words
    question, inputs = nearest["question_auc"], nearest["input_auc"]
    similarity = nearest["instructions"].value
    label = question.reference
    apart = f"ROC area {question.value:.3f}, with confidence below {settings.known_auc:g}"
    if _below(question, settings.known_auc):
        return "known", [f"its questions cannot be told from those of {label}: {apart}"]
    if similarity >= settings.related_similarity:
        close = f"similarity {similarity:.2f}, from {settings.related_similarity:g} on"
        words.append(f"its instructions resemble those of {label}: {close}")
    if _below(inputs, settings.related_auc):
        apart = f"ROC area {inputs.value:.3f}, with confidence below {settings.related_auc:g}"
        words.append(f"its inputs overlap with those of {label}: {apart}")
    if words:
        return "related", words
    apart = f"inputs told apart with ROC area {inputs.value:.3f}, instructions similar by {similarity:.2f}"
    return "new", [f"closest is {label}, and it is not close: {apart}"]


def _extreme(far: Mapping[str, Effect], settings: DriftSettings) -> list[str]:
    ratio, foreign = far["length_ratio"], far["foreign_share"]
    words = []
    if ratio.value >= settings.extreme_length_ratio:
        limit = settings.extreme_length_ratio
        where = f"all seen in {ratio.reference}"
        words.append(f"the median input is {ratio.value:.1f} times longer or shorter than {where} (limit {limit:g})")
    if foreign.value >= settings.extreme_foreign_share:
        limit = settings.extreme_foreign_share
        words.append(
            f"{foreign.value:.0%} of the letters are in scripts not seen before in {foreign.reference} "
            f"(limit {limit:.0%})"
        )
    hard = far.get("surprise")
    if hard is not None and hard.low is not None and hard.low >= settings.extreme_surprise:
        words.append(
            f"the base model needs {hard.value:.1f} times as many bits a character to read it as for "
            f"{hard.reference} (limit {settings.extreme_surprise:g})"
        )
    return words


def _below(measure: Effect, limit: float) -> bool:
    return measure.high is not None and measure.high < limit
