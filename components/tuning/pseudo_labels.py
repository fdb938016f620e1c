"""Pseudo-labels: a model answers the task's unlabelled rows, and the answers it can be trusted with are learnt.

Each row is asked in several wordings of the task's instruction. How many of them agree on an answer, and how far
the model preferred it to the second best, is the confidence in it. The threshold is calibrated on validation rows,
which are asked in the same way: answers at or above it are right with at least the asked-for precision, shown by an
exact binomial bound, or no answer is used at all. Which confidence is worth what is thereby measured for each
task, so instructions that are no paraphrases of each other only make for fewer rows.

Off by default: nothing measured so far shows that it helps (benchmarks/pseudo_labels). It stays because packages may
bring unlabelled rows and the few runs there do not settle the question.

Agreement as confidence: Wang et al. 2022 (self-consistency), arXiv 2203.11171; paraphrased prompts: Jiang et al. 2020,
arXiv 1911.12543. Calibration: fixed-sequence testing of Learn then Test, Angelopoulos et al. 2021, arXiv 2110.01052.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from scipy.stats import beta
from torch import Tensor

from components.model.adapters import AdapterSlot
from components.model.choosing import likeliest, log_likelihood
from components.model.generation import generate_greedy
from components.model.packing import batches_of_similar
from components.model.prompts import Rendered, TooLong, render, render_prompt
from components.model.trunk import Trunk
from components.quality.leaks import rewordings, seen_before
from components.settings import PseudoLabelSettings
from components.storage.objects import canonical, digest_of
from components.tasks.rows import Example, Unlabelled
from components.tasks.snapshot import Snapshot
from components.tasks.task_file import Task
from components.tuning.rehearsal import select_rows

Progress = Callable[[str, int, int], None]
Confidence: TypeAlias = tuple[float, float]
"""Share of the wordings that gave the answer, and the mean logit gap between it and the second best; compared in this
order, so the gap decides among answers that equally many wordings agree on."""
COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the validation rows, the most confident first, at which a threshold is tried."""


@dataclass(frozen=True)
class WordingAnswer:
    """Answer to one wording of a row; `text` is None if it may not be used."""

    text: str | None
    gap: float


@dataclass(frozen=True)
class Guess:
    """The answer that most wordings of a row agree on; `text` is None without one that may be used."""

    text: str | None
    confidence: Confidence


@dataclass(frozen=True)
class TrustLevel:
    """The lowest confidence that may be trusted (None: none may), and the validation rows that show it."""

    threshold: Confidence | None
    rows: int
    count: int
    right: int
    precision_at_least: float


@dataclass(frozen=True)
class Offer:
    """Unlabelled rows that may be used, and how many may not.

    `leaking` rows ask what an evaluation row of this or an earlier task asks, also under another wording of this
    task's instruction; `repeats` counts rows that are labelled already or stand there twice. `unknown`: evaluation rows
    of earlier tasks, as `name@version split`, that are erased, so that nobody can say whether one of them is asked.
    """

    rows: tuple[Unlabelled, ...]
    leaking: int
    repeats: int
    unknown: tuple[str, ...] = ()


class Labeller:
    """The base model with the adapter that each row is routed to (None: the base model alone)."""

    def __init__(
        self,
        trunk: Trunk,
        slot: AdapterSlot,
        routes: Callable[[Sequence[Unlabelled]], list[str | None]],
        adapters: Mapping[str, Mapping[str, Tensor]],
        batch_rows: int,
    ) -> None:
        self.trunk, self.slot, self.batch_rows = trunk, slot, batch_rows
        self._routes, self._adapters = routes, adapters

    def answers(self, task: Task, rows: Sequence[Unlabelled], progress: Progress | None = None) -> list[WordingAnswer]:
        """Answers under the task's decoding contract."""
        out = [WordingAnswer(None, 0.0)] * len(rows)
        by_adapter: dict[str | None, list[int]] = defaultdict(list)
        for index, route in enumerate(self._routes(rows)):
            by_adapter[route].append(index)
        report = (lambda n: progress("label", n, len(rows))) if progress else None
        for adapter in sorted(by_adapter, key=str):
            members = by_adapter[adapter]
            if adapter is not None:
                self.slot.load(self._adapters[adapter])
            with self.slot.switched_off() if adapter is None else nullcontext():
                answer = self._choose if task.decoding.mode == "choose" else self._generate
                for index, result in zip(members, answer(task, [rows[i] for i in members], report), strict=True):
                    out[index] = result
        return out

    def _generate(
        self, task: Task, rows: Sequence[Unlabelled], report: Callable[[int], None] | None
    ) -> Iterable[WordingAnswer]:
        base, limit = self.trunk.base, task.decoding.max_new_tokens
        tokenizer = base.tokenizer
        prompts = [
            render_prompt(base.reader, base.settings, row.instruction, row.input or "", row.images) for row in rows
        ]
        for row, result in zip(
            rows,
            generate_greedy(self.slot.model, prompts, limit, base.ends, self.batch_rows, report, base.sight),
            strict=True,
        ):
            text = tokenizer.decode(result.tokens, skip_special_tokens=True).strip()
            choices = row.choices or task.choices
            unusable = not text or len(result.tokens) == limit or (choices and text not in choices)
            yield WordingAnswer(None if unusable else text, result.gap)

    @torch.no_grad()
    def _choose(
        self, task: Task, rows: Sequence[Unlabelled], report: Callable[[int], None] | None
    ) -> Iterable[WordingAnswer]:
        base = self.trunk.base
        choices = [row.choices or task.choices or () for row in rows]
        pairs = [
            render(base.reader, base.settings, row.instruction, row.input, choice, row.images)
            for row, every in zip(rows, choices, strict=True)
            for choice in every
        ]
        likelihoods = self._likelihoods(pairs)
        by_token = task.decoding.length_normalisation == "tokens"
        start = 0
        for every in choices:
            own = slice(start, start + len(every))
            start += len(every)
            best, gap = likeliest(likelihoods[own], pairs[own], by_token=by_token, alone=0.0)
            yield WordingAnswer(every[best], gap)
            if report:
                report(1)

    def _likelihoods(self, pairs: Sequence[Rendered]) -> list[float]:
        out = [0.0] * len(pairs)
        for batch in batches_of_similar([pair.tokens for pair in pairs], self.batch_rows):
            states = self.trunk.states([pairs[i].tokens for i in batch], self.batch_rows)
            logits = self.trunk.answer_logits(states, [len(pairs[i].prompt) for i in batch])
            for i, values in zip(batch, logits, strict=True):
                out[i] = log_likelihood(values, pairs[i])
        return out


def pseudo_label(
    labeller: Labeller,
    snapshot: Snapshot,
    priors: Sequence[Snapshot],
    settings: PseudoLabelSettings,
    seed: int,
    progress: Progress | None = None,
) -> tuple[list[Example], dict[str, Any]]:
    """The unlabelled rows of a task whose answers may be trusted, with these answers; and what to put on record."""
    offer = usable_rows(snapshot, priors)
    sample = [offer.rows[i] for i in select_rows(len(offer.rows), settings.rows, seed)]
    validation = snapshot.rows("validation")
    validation = tuple(validation[i] for i in select_rows(len(validation), settings.rows, seed))
    wordings = [text for text, _ in Counter(row.instruction for row in snapshot.rows("train")).most_common()]
    questions = [Unlabelled(row.instruction, row.input, row.choices, row.images) for row in validation]
    guesses = guess(labeller, snapshot.task, [*questions, *sample], wordings, settings.paraphrases, progress)
    ours, new = guesses[: len(validation)], guesses[len(validation) :]
    right = [g.text == row.output.strip() for g, row in zip(ours, validation, strict=True)]
    calibration = calibrate(ours, right, settings.precision, settings.confidence)
    rows = [
        row.with_answer(g.text)
        for row, g in zip(sample, new, strict=True)
        if calibration.threshold is not None and g.text is not None and g.confidence >= calibration.threshold
        if _fits(labeller, row, [g.text])
    ]
    record = {
        "labeller": settings.labeller,
        "offered": len(offer.rows) + offer.leaking + offer.repeats,
        "leaking": offer.leaking,
        "repeated": offer.repeats,
        "asked": len(sample),
        "used": len(rows),
        "labels": digest_of(canonical([row.id for row in rows])),
        "threshold": list(calibration.threshold) if calibration.threshold else None,
        "validation_rows": calibration.rows,
        "validation_accepted": calibration.count,
        "validation_right": calibration.right,
        "precision_at_least": calibration.precision_at_least,
        "precision_wanted": settings.precision,
        "confidence": settings.confidence,
        **({"unknown": list(offer.unknown)} if offer.unknown else {}),
    }
    return rows, {**record, "words": _words(record)}


def usable_rows(snapshot: Snapshot, priors: Iterable[Snapshot]) -> Offer:
    """Unlabelled rows that are neither labelled nor evaluated on, each question once."""
    rows = snapshot.unlabelled_rows()
    before = seen_before([*priors, snapshot])
    evaluation_questions = before.evaluation.questions
    own = [*snapshot.rows("validation"), *snapshot.rows("test")]
    again = rewordings([row.with_answer("") for row in rows], own)
    leaking = [row.question in evaluation_questions or other for row, other in zip(rows, again, strict=True)]
    questions = {row.question for row in snapshot.rows("train")}
    usable = []
    for row, leaks in zip(rows, leaking, strict=True):
        if not leaks and row.question not in questions:
            questions.add(row.question)
            usable.append(row)
    unknown = tuple(place for place in before.unknown if not place.endswith(" train"))
    return Offer(tuple(usable), sum(leaking), len(rows) - sum(leaking) - len(usable), unknown)


def guess(
    labeller: Labeller,
    task: Task,
    rows: Sequence[Unlabelled],
    wordings: Sequence[str],
    paraphrases: int,
    progress: Progress | None = None,
) -> list[Guess]:
    """Answer that most of up to `paraphrases` wordings of each row agree on, its own wording first.

    A row without input is its instruction: it has one wording, and its confidence is the gap alone.
    """
    queries: list[Unlabelled] = []
    spans: list[range] = []
    for row in rows:
        others = [text for text in wordings if text != row.instruction] if row.input or row.images else []
        each = [replace(row, instruction=text) for text in (row.instruction, *others[: paraphrases - 1])]
        fitting = [one for one in each if _fits(labeller, one, one.choices or task.choices or ("",))]
        spans.append(range(len(queries), len(queries) + len(fitting)))
        queries += fitting
    answers = labeller.answers(task, queries, progress)
    return [_vote([answers[i] for i in span]) for span in spans]


def calibrate(guesses: Sequence[Guess], right: Sequence[bool], precision: float, confidence: float) -> TrustLevel:
    """The lowest confidence at which answers are right with at least `precision`, shown with `confidence`.

    The most confident rows are tested first, as many as may have one wrong answer among them, then ever more, and the
    first set that fails ends it: a fixed sequence of tests needs no correction for their number. Which sets there are
    depends on the confidences alone, not on what is right.
    """
    order = sorted(
        ((g.confidence, hit) for g, hit in zip(guesses, right, strict=True) if g.text is not None), reverse=True
    )
    best = TrustLevel(None, len(guesses), 0, 0, 0.0)
    for coverage in COVERAGES if order else ():
        threshold = order[max(round(coverage * len(order)), 1) - 1][0]
        hits = [hit for own, hit in order if own >= threshold]
        if _at_least(len(hits) - 1, len(hits), confidence) < precision:
            continue
        low = _at_least(sum(hits), len(hits), confidence)
        if low < precision:
            break
        best = TrustLevel(threshold, len(guesses), len(hits), sum(hits), low)
    return best


def _at_least(right: int, rows: int, confidence: float) -> float:
    """Lower bound of a share, one-sided and exact (Clopper and Pearson 1934, Biometrika 26, 404-413).

    Wilson's bound, used elsewhere, falls short of its confidence at shares near 1: 25 right of 25 show .902 by it,
    which a true share of .9 does with a probability of .07.
    """
    return float(beta.ppf(1 - confidence, right, rows - right + 1)) if right else 0.0


def _words(record: Mapping[str, Any]) -> str:
    """One sentence for the report and the model card."""
    by = "the champion" if record["labeller"] == "champion" else "a first pass over the labelled rows"
    subject = f"{record['asked']} unlabelled rows, labelled by {by}"
    if "unknown" in record:
        subject += f" (not checked against {', '.join(record['unknown'])}, whose rows are erased)"
    evidence = f"{record['validation_right']} of {record['validation_accepted']} validation rows right"
    if record["threshold"] is None:
        return f"none of {subject}, was used: no confidence shows a precision of {record['precision_wanted']:g}"
    agreement, gap = record["threshold"]
    return (
        f"{record['used']} of {subject}, were used: from agreement {agreement:.2f} and gap {gap:.2f} on, precision at "
        f"least {record['precision_at_least']:.3f} ({evidence})"
    )


def _vote(answers: Sequence[WordingAnswer]) -> Guess:
    counts = Counter(answer.text for answer in answers if answer.text is not None)
    if not counts:
        return Guess(None, (0.0, 0.0))
    text, votes = counts.most_common(1)[0]  # of several, the one that was given first
    gaps = [answer.gap for answer in answers if answer.text == text]
    return Guess(text, (votes / len(answers), sum(gaps) / len(gaps)))


def _fits(labeller: Labeller, row: Unlabelled, answers: Iterable[str]) -> bool:
    """True if the row fits into the context with each of the answers."""
    base = labeller.trunk.base
    try:
        for answer in answers:
            render(base.reader, base.settings, row.instruction, row.input, answer, row.images)
    except TooLong:
        return False
    return True
