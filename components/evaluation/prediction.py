"""Predictions under one decoding contract: certified in one forward pass where possible, else decoded.

Feeding the reference answer shows in one pass whether greedy decoding would produce exactly it, end token
included. Misses are decoded, so text and score equal plain greedy decoding.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from components.evaluation.metrics import BINARY, METRICS
from components.model.adapters import AdapterSlot
from components.model.generation import generate_greedy
from components.model.prompts import Rendered, render
from components.model.trunk import State, Trunk, batches_of_similar
from components.storage.objects import canonical, digest_of
from components.tasks.package import Task
from components.tasks.rows import Example

Progress = Callable[[str, int, int], None]
"""Called with a phase, a number of rows done since the last call, and the phase's total."""
Value = TypeVar("Value")
ONLY_CHOICE = 1e6
"""Gap where there is a single choice."""


@dataclass(frozen=True)
class Query:
    """One example to predict with one adapter (None: the base model alone)."""

    example: Example
    task: Task
    adapter: str | None
    rendered: Rendered
    key: str


@dataclass(frozen=True)
class Prediction:
    """`text` is None where only the score was asked for; `gap` is the smallest top-2 logit gap."""

    text: str | None
    score: float
    gap: float


CACHE_BYTES = 2**30
"""Most memory that trunk states of examples may take between two calls."""


class Evaluator:
    """The loaded base model and slot, with the trunk states of recent examples."""

    def __init__(self, trunk: Trunk, slot: AdapterSlot, batch_rows: int) -> None:
        self.trunk, self.slot, self.batch_rows = trunk, slot, batch_rows
        self._states: dict[tuple[int, ...], State] = {}

    def query(self, task: Task, example: Example, adapter: str | None) -> Query:
        """A query with its key: tokens, adapter, decoding contract and numerics decide a prediction."""
        base = self.trunk.base
        rendered = render(base.tokenizer, base.settings, example.instruction, example.input, example.output)
        parts = {
            "adapter": adapter,
            "choices": list(choices_of(task, example)),
            "decoding": task.decoding.model_dump(mode="json"),
            "numerics": base.numerics_digest,
            "base": base.digest,
            "tokens": list(rendered.prompt),
        }
        return Query(example, task, adapter, rendered, digest_of(canonical(parts)))

    def predict(
        self,
        queries: Sequence[Query],
        adapters: Mapping[str, Mapping[str, Tensor]],
        *,
        scores_only: bool = False,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        """Predict every query; adapters are applied one after the other.

        `scores_only` leaves out the decoding of answers that are already known to score 0.
        """
        out: list[Prediction | None] = [None] * len(queries)
        by_adapter: dict[str | None, list[int]] = defaultdict(list)
        for index, query in enumerate(queries):
            by_adapter[query.adapter].append(index)
        for adapter in sorted(by_adapter, key=str):
            if adapter is not None:
                self.slot.load(adapters[adapter])
            with self.slot.switched_off() if adapter is None else nullcontext():
                modes: dict[str, list[int]] = defaultdict(list)
                for index in by_adapter[adapter]:
                    modes[queries[index].task.decoding.mode].append(index)
                for mode, members in modes.items():
                    chosen = [queries[i] for i in members]
                    if mode == "choose":
                        results = self._choose(chosen, progress)
                    else:
                        results = self._generate(chosen, scores_only, progress)
                    for index, result in zip(members, results, strict=True):
                        out[index] = result
        return [p for p in out if p is not None]

    def _generate(self, queries: Sequence[Query], scores_only: bool, progress: Progress | None) -> list[Prediction]:
        tokenizer = self.trunk.base.tokenizer
        out: list[Prediction] = []
        misses: list[int] = []
        for index, (begun, gaps) in enumerate(self._certify([q.rendered for q in queries], progress)):
            query, limit = queries[index], queries[index].task.decoding.max_new_tokens
            tokens, gap = begun[:limit], min(gaps[:limit])
            ended = len(tokens) == limit or tokens[-1] == tokenizer.eos_token_id
            text = tokenizer.decode([t for t in tokens if t != tokenizer.eos_token_id], skip_special_tokens=True)
            if ended:
                out.append(Prediction(text, METRICS[query.task.metric](text, query.example.output), gap))
            else:
                out.append(Prediction(None, 0.0, gap))  # to be decoded below, unless it is lost already
            lost = scores_only and query.task.metric in BINARY and not _may_become(text, query.example.output)
            if not (ended or lost):
                misses.append(index)
        by_length: dict[int, list[int]] = defaultdict(list)
        for index in misses:
            by_length[queries[index].task.decoding.max_new_tokens].append(index)
        for limit, members in by_length.items():
            prompts = [queries[i].rendered.prompt for i in members]
            end = tokenizer.eos_token_id
            report = (lambda n: progress("decoding", n, len(misses))) if progress else None
            decoded = generate_greedy(self.trunk.base.model, prompts, limit, end, self.batch_rows, report)
            for index, result in zip(members, decoded, strict=True):
                text = tokenizer.decode(result.tokens, skip_special_tokens=True)
                score = METRICS[queries[index].task.metric](text, queries[index].example.output)
                out[index] = Prediction(text, score, result.gap)
        return out

    @torch.no_grad()
    def _certify(self, rows: Sequence[Rendered], progress: Progress | None) -> list[tuple[list[int], list[float]]]:
        """Per row: the first tokens of greedy decoding, as far as one pass tells, and their top-2 logit gaps.

        They follow the reference up to and including the first token that differs from it, or the end token.
        """
        end = self.trunk.base.tokenizer.eos_token_id

        def certify(logits: Tensor, row: Rendered) -> tuple[list[int], list[float]]:
            top = logits.topk(2, dim=-1)
            greedy = top.indices[:, 0].tolist()
            pairs = enumerate(zip(greedy, row.answer, strict=True), 1)
            known = next((i for i, (ours, theirs) in pairs if ours != theirs or ours == end), len(greedy))
            return greedy[:known], (top.values[:known, 0] - top.values[:known, 1]).tolist()

        return self._per_row(rows, certify, progress)

    @torch.no_grad()
    def _choose(
        self,
        queries: Sequence[Query],
        progress: Progress | None,
    ) -> list[Prediction]:
        base = self.trunk.base
        rows: list[Rendered] = []
        for query in queries:
            for choice in choices_of(query.task, query.example):
                ids = base.tokenizer(choice, add_special_tokens=False)["input_ids"]
                rows.append(Rendered(query.rendered.prompt, (*ids, base.tokenizer.eos_token_id)))

        def likelihood_of(logits: Tensor, row: Rendered) -> float:
            answer = torch.tensor(row.answer, device=logits.device)
            return float(logits.log_softmax(-1).gather(1, answer[:, None]).sum())

        likelihood = self._per_row(rows, likelihood_of, progress)
        out, start = [], 0
        for query in queries:
            choices = choices_of(query.task, query.example)
            span = range(start, start + len(choices))
            start += len(choices)
            by_token = query.task.decoding.length_normalisation == "tokens"
            values = [likelihood[i] / (len(rows[i].answer) if by_token else 1) for i in span]
            best, *others = sorted(range(len(choices)), key=lambda c: -values[c])
            gap = values[best] - values[others[0]] if others else ONLY_CHOICE
            score = METRICS[query.task.metric](choices[best], query.example.output)
            out.append(Prediction(choices[best], score, gap))
        return out

    def _per_row(
        self, rows: Sequence[Rendered], reduce: Callable[[Tensor, Rendered], Value], progress: Progress | None
    ) -> list[Value]:
        """`reduce(answer logits, row)` per row; logits (answer, vocabulary) are never kept."""
        missing = list(dict.fromkeys(r.tokens for r in rows if r.tokens not in self._states))
        report = (lambda n: progress("trunk", n, len(missing))) if progress else None
        for tokens, state in zip(missing, self.trunk.states(missing, self.batch_rows, report), strict=True):
            self._states[tokens] = state
        out: dict[int, Value] = {}
        for batch in batches_of_similar([row.tokens for row in rows], self.batch_rows):
            states = [self._states[rows[i].tokens] for i in batch]
            logits = self.trunk.answer_logits(states, [len(rows[i].prompt) for i in batch])
            for i, values in zip(batch, logits, strict=True):
                out[i] = reduce(values, rows[i])
            if progress:
                progress("reading", len(batch), len(rows))
        self._evict()
        return [out[i] for i in range(len(rows))]

    def _evict(self) -> None:
        """Forget the states that were computed first once they take more than `CACHE_BYTES`."""
        size = sum(state.nbytes for state in self._states.values())
        for tokens in list(self._states):
            if size <= CACHE_BYTES:
                break
            size -= self._states.pop(tokens).nbytes


def _may_become(text: str, reference: str) -> bool:
    """Whether an answer that begins with `text` can still match; white space may yet be cleaned up."""
    whole = text.rstrip("\N{REPLACEMENT CHARACTER}")  # half a character
    return "".join(reference.split()).startswith("".join(whole.split()))


def choices_of(task: Task, example: Example) -> tuple[str, ...]:
    """Answers to choose from: the example's own, else the task's."""
    return tuple(example.choices or task.choices or ())
