"""Predictions under one decoding contract: certified in one forward pass where possible, else decoded.

Feeding the reference answer shows in one pass whether greedy decoding would produce exactly it, end token
included. Misses are decoded further from the token that left the reference, with the keys and values of that pass, so
text and score equal plain greedy decoding. The result of a call is a function of its queries alone, to the last bit: a
repeated or resumed evaluation ends in the same record.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from components.evaluation.metrics import BINARY, METRICS
from components.model.adapters import AdapterSlot
from components.model.base import BaseModel
from components.model.choosing import likeliest, log_likelihood
from components.model.generation import Begun, continue_greedy, generate_greedy
from components.model.memory import enough_memory, give_back
from components.model.packing import batches_of_similar
from components.model.prompts import Rendered, answer_tokens, control_of, render
from components.model.trunk import Past, State, Trunk, memory
from components.storage.objects import canonical, digest_of
from components.tasks.rows import Example
from components.tasks.task_file import Task

Progress = Callable[[str, int, int], None]
"""Called with a phase, a number of rows done since the last call, and the phase's total."""
Tokens = tuple[int, ...]
Value = TypeVar("Value")
ONLY_CHOICE = 1e6
"""Gap of a single choice."""


@dataclass(frozen=True)
class Query:
    """One example to predict with one adapter (None: the base model alone)."""

    example: Example
    task: Task
    adapter: str | None
    rendering: Rendered
    key: str


@dataclass(frozen=True)
class Prediction:
    """`text` is None where only the score was asked for; `gap` is the smallest top-2 logit gap.

    `cut`: decoding stopped at `max_new_tokens`, not at an end token.
    """

    text: str | None
    score: float
    gap: float
    cut: bool = False


CACHE_BYTES = 2**29
"""Most memory that trunk states of examples may take between two calls."""


class Evaluator:
    """The loaded base model and slot, with the trunk states of recent batches of examples."""

    def __init__(self, trunk: Trunk, slot: AdapterSlot, batch_rows: int) -> None:
        self.trunk, self.slot, self.batch_rows = trunk, slot, batch_rows
        self._cache: dict[tuple[bool, tuple[Tokens, ...]], list[State]] = {}

    @property
    def contract(self) -> str:
        """Digest of all that decides a prediction besides the example, its task and the adapter."""
        base = self.trunk.base
        parts = {
            "numerics": base.numerics_digest,
            "base": base.digest,
            "system_prompt": base.settings.system_prompt,
            "max_tokens": base.settings.max_tokens,
            **_ends(base),
        }
        return digest_of(canonical(parts))

    def query(self, task: Task, example: Example, adapter: str | None) -> Query:
        """A query with its key: tokens, images, adapter, decoding contract and numerics decide a prediction."""
        base = self.trunk.base
        rendering = render(
            base.reader, base.settings, example.instruction, example.input, example.output, example.images
        )
        parts: dict[str, Any] = {
            "adapter": adapter,
            "choices": list(choices_of(task, example)),
            "decoding": task.decoding.model_dump(mode="json"),
            "numerics": base.numerics_digest,
            "base": base.digest,
            "tokens": list(rendering.prompt),
            **_ends(base),
        }
        controls = [choice for choice in parts["choices"] if control_of(base.reader).spells_control(choice)]
        if controls:  # once read as control tokens: a prediction of then is another one
            parts["answers"] = [list(answer_tokens(base.reader, choice)) for choice in controls]
        if base.sight and example.images:
            parts["tokens"] = base.sight.reader.plain(rendering.prompt)
            parts["images"] = [picture.digest for picture in example.images]
        return Query(example, task, adapter, rendering, digest_of(canonical(parts)))

    @enough_memory("while predicting", "lower evaluation.batch_rows, or set base_model.dtype to bfloat16")
    def predict(
        self,
        queries: Sequence[Query],
        adapters: Mapping[str, Mapping[str, Tensor]],
        *,
        scores_only: bool = False,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        """Predict every query; adapters are applied one after the other (measured in benchmarks/evaluation).

        `scores_only` leaves out the decoding of answers that are already known to score 0.

        Raises:
            OutOfMemory: the device has not enough memory for a batch.
        """
        rows = [self._rows(query) for query in queries]
        decodes = any(query.task.decoding.mode != "choose" for query in queries)
        states = self._states([row.tokens for each in rows for row in each], progress, keep_past=decodes)
        out: list[Prediction | None] = [None] * len(queries)
        work: dict[tuple[str | None, str], list[int]] = defaultdict(list)
        for index, query in enumerate(queries):
            work[query.adapter, query.task.decoding.mode].append(index)
        for adapter, mode in sorted(work, key=str):  # None, the base model, does not compare with a digest
            members = work[adapter, mode]
            read = _Reading(self, states, sum(len(rows[i]) for i in members), progress)
            if adapter is not None:
                self.slot.load(adapters[adapter])
            with self.slot.switched_off() if adapter is None else nullcontext():
                batch = [queries[i] for i in members]
                if mode == "choose":
                    results = self._choose(batch, [rows[i] for i in members], read)
                else:
                    results = self._generate(batch, read, scores_only, progress)
            for index, result in zip(members, results, strict=True):
                out[index] = result
        self._evict()
        return [p for p in out if p is not None]

    def _generate(
        self, queries: Sequence[Query], read: "_Reading", scores_only: bool, progress: Progress | None
    ) -> list[Prediction]:
        tokenizer, ends = self.trunk.base.tokenizer, self.trunk.base.ends
        out: list[Prediction] = []
        misses: list[int] = []
        certificates = self._certify([q.rendering for q in queries], read)
        for index, certificate in enumerate(certificates):
            query, limit = queries[index], queries[index].task.decoding.max_new_tokens
            tokens, gap = certificate.tokens[:limit], min(certificate.gaps[:limit])
            complete = len(tokens) == limit or tokens[-1] in ends
            text = tokenizer.decode([t for t in tokens if t not in ends], skip_special_tokens=True)
            if complete:
                cut = tokens[-1] not in ends
                out.append(Prediction(text, METRICS[query.task.metric](text, query.example.output), gap, cut))
            else:
                out.append(Prediction(None, 0.0, gap))  # to be decoded below, unless it is lost already
            hopeless = scores_only and query.task.metric in BINARY and not _may_become(text, query.example.output)
            if not (complete or hopeless):
                misses.append(index)
        report = (lambda n: progress("decoding", n, len(misses))) if progress else None
        for index, (tokens, gap) in zip(misses, self._decode(queries, certificates, misses, report), strict=True):
            query, text = queries[index], tokenizer.decode(tokens, skip_special_tokens=True)
            cut = len(tokens) == query.task.decoding.max_new_tokens
            out[index] = Prediction(text, METRICS[query.task.metric](text, query.example.output), gap, cut)
        return out

    def _decode(
        self,
        queries: Sequence[Query],
        certificates: Sequence["_Certified"],
        misses: Sequence[int],
        progress: Callable[[int], None] | None,
    ) -> list[tuple[list[int], float]]:
        """Tokens and smallest gap of greedy decoding for `misses`, which have begun without reaching their end."""
        base = self.trunk.base
        model, ends = base.model, base.ends
        if self.trunk.split:
            rows = []
            for index in misses:
                query, certificate = queries[index], certificates[index]
                limit = query.task.decoding.max_new_tokens - len(certificate.tokens)
                length = len(query.rendering.prompt) + len(certificate.tokens) - 1
                read = (*query.rendering.prompt, *certificate.tokens[:-1])
                position = base.sight.position(read) if base.sight else None
                rows.append(Begun(certificate.tokens[-1], length, certificate.pasts, limit, position))
            results = continue_greedy(model, rows, ends, self.batch_rows, progress)
            pairs = [(certificates[index], result) for index, result in zip(misses, results, strict=True)]
            return [([*k.tokens, *result.tokens], min(*k.gaps, result.gap)) for k, result in pairs]
        by_index: dict[int, tuple[list[int], float]] = {}
        by_limit: dict[int, list[int]] = defaultdict(list)
        for index in misses:
            by_limit[queries[index].task.decoding.max_new_tokens].append(index)
        for limit, members in by_limit.items():
            prompts = [queries[i].rendering.prompt for i in members]
            results = generate_greedy(model, prompts, limit, ends, self.batch_rows, progress, base.sight)
            by_index.update((i, (list(result.tokens), result.gap)) for i, result in zip(members, results, strict=True))
        return [by_index[index] for index in misses]

    def _certify(self, rows: Sequence[Rendered], read: "_Reading") -> list["_Certified"]:
        ends = self.trunk.base.ends

        def certify(logits: Tensor, row: Rendered, pasts: tuple[Past, ...]) -> _Certified:
            top = logits.topk(2, dim=-1)
            greedy = top.indices[:, 0].tolist()
            pairs = enumerate(zip(greedy, row.answer, strict=True), 1)
            count = next((i for i, (ours, theirs) in pairs if ours != theirs or ours in ends), len(greedy))
            return _Certified(greedy[:count], (top.values[:count, 0] - top.values[:count, 1]).tolist(), pasts)

        return read(rows, certify, keep_past=self.trunk.split)

    def likelihoods(self, rows: Sequence[Rendered], adapter: Mapping[str, Tensor] | None) -> list[float]:
        """Log-likelihood of each row's answer, its end token included, with an adapter (None: the base model alone)."""
        states = self._states([row.tokens for row in rows], None, keep_past=False)
        if adapter is not None:
            self.slot.load(adapter)
        with self.slot.switched_off() if adapter is None else nullcontext():
            likelihoods = _Reading(self, states, len(rows), None)(rows, _likelihood_of)
        self._evict()
        return likelihoods

    def _choose(self, queries: Sequence[Query], rows: Sequence[list[Rendered]], read: "_Reading") -> list[Prediction]:
        likelihoods = iter(read([row for each in rows for row in each], _likelihood_of))
        out = []
        for query, each in zip(queries, rows, strict=True):
            choices = choices_of(query.task, query.example)
            by_token = query.task.decoding.length_normalisation == "tokens"
            own = [next(likelihoods) for _ in each]
            best, gap = likeliest(own, each, by_token=by_token, alone=ONLY_CHOICE)
            score = METRICS[query.task.metric](choices[best], query.example.output)
            out.append(Prediction(choices[best], score, gap))
        return out

    def _rows(self, query: Query) -> list[Rendered]:
        """Rows that the model reads for a query: prompt and reference, or prompt and each choice."""
        if query.task.decoding.mode != "choose":
            return [query.rendering]
        reader, prompt = self.trunk.base.reader, query.rendering.prompt
        return [Rendered(prompt, answer_tokens(reader, c)) for c in choices_of(query.task, query.example)]

    def _states(self, rows: Sequence[Tokens], progress: Progress | None, *, keep_past: bool) -> dict[Tokens, State]:
        """Trunk states by row; whole batches are remembered, since a state's last bits depend on its batch."""
        distinct = list(dict.fromkeys(rows))
        batches = [tuple(distinct[i] for i in batch) for batch in batches_of_similar(distinct, self.batch_rows)]
        missing = [batch for batch in batches if (keep_past, batch) not in self._cache]
        total = sum(map(len, missing))
        report = (lambda n: progress("trunk", n, total)) if progress else None
        for batch in missing:
            states = self.trunk.states(batch, self.batch_rows, report, keep_past=keep_past)
            self._cache[keep_past, batch] = states
        return {state.tokens: state for batch in batches for state in self._cache[keep_past, batch]}

    def _evict(self) -> None:
        """Forget the batches that were computed first once they take more than `CACHE_BYTES`."""
        size = sum(memory(states) for states in self._cache.values())
        for batch in list(self._cache):
            if size <= CACHE_BYTES:
                break
            size -= memory(self._cache.pop(batch))
        give_back()


def _ends(base: BaseModel) -> dict[str, list[int]]:
    """End tokens as part of a key, if there are others than the tokenizer's own, which were the only ones once."""
    return {} if base.ends == (base.tokenizer.eos_token_id,) else {"ends": list(base.ends)}


@dataclass(frozen=True)
class _Certified:
    """The first tokens of greedy decoding, as far as one pass tells, their top-2 logit gaps, and that pass's past.

    They follow the reference up to and including the first token that differs from it, or the end token.
    """

    tokens: list[int]
    gaps: list[float]
    pasts: tuple[Past, ...]


@dataclass(frozen=True)
class _Reading:
    """Passes over rows whose trunk states are known, with the adapter that is in the slot."""

    evaluator: Evaluator
    states: Mapping[Tokens, State]
    total: int
    progress: Progress | None

    @torch.no_grad()
    def __call__(
        self,
        rows: Sequence[Rendered],
        reduce: Callable[[Tensor, Rendered, tuple[Past, ...]], Value],
        *,
        keep_past: bool = False,
    ) -> list[Value]:
        """`reduce(answer logits, row, its past)` per row; logits (answer, vocabulary) are never kept."""
        out: dict[int, Value] = {}
        for batch in batches_of_similar([row.tokens for row in rows], self.evaluator.batch_rows):
            states = [self.states[rows[i].tokens] for i in batch]
            upper: list[Past] | None = [] if keep_past else None
            logits = self.evaluator.trunk.answer_logits(states, [len(rows[i].prompt) for i in batch], upper)
            for place, i in enumerate(batch):
                lower = states[place].past
                pasts = tuple(past for past in (lower, upper[place]) if past) if upper else ()
                out[i] = reduce(logits[place], rows[i], pasts)
            if self.progress:
                self.progress("reading", len(batch), self.total)
        return [out[i] for i in range(len(rows))]


def _likelihood_of(logits: Tensor, row: Rendered, _: tuple[Past, ...]) -> float:
    return log_likelihood(logits, row)


def _may_become(text: str, reference: str) -> bool:
    """True if an answer that begins with `text` can still match; white space may yet be cleaned up."""
    whole = text.rstrip("\N{REPLACEMENT CHARACTER}")  # half a character
    return "".join(reference.split()).startswith("".join(whole.split()))


def choices_of(task: Task, example: Example) -> tuple[str, ...]:
    """Answers to choose from: the example's own, else the task's."""
    return tuple(example.choices or task.choices or ())
