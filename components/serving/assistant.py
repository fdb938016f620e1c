"""A version that answers: each request by the adapter it is routed to, under the contract of the task it is nearest to.

`lcia ask`, the MLflow model and programs that load an exported folder answer through this one class.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from components.errors import LciaError
from components.evaluation.prediction import Evaluator
from components.grouping.codebook import Route
from components.grouping.router import Router
from components.model.generation import generate_greedy
from components.model.prompts import render_prompt
from components.model.workbench import Workbench
from components.serving.bundle import Bundle
from components.settings import GroupingSettings
from components.tasks.images import Picture
from components.tasks.rows import Example
from components.tasks.task_file import Decoding, Task

Request: TypeAlias = tuple[str, str | None] | tuple[str, str | None, Sequence[Picture]]
"""Instruction and input, and the images they are about."""
FREE = Decoding(max_new_tokens=64)
"""Contract of requests that resemble no task."""
UNROUTED = Route(None, 0.0, 0.0, None, exact=False)


class WrongBaseModel(LciaError):
    """Adapters on another base model than they were tuned on."""


@dataclass(frozen=True)
class Answer:
    """An answer and its origin; `group` is None if the base model answered alone."""

    text: str
    group: str | None
    similarity: float
    nearest_task: str | None


class Assistant:
    """A loaded base model with the adapters and the router of one version (None: the base model alone)."""

    def __init__(self, bench: Workbench, bundle: Bundle | None, grouping: GroupingSettings | None = None) -> None:
        """Load an assistant; `grouping` names the folder of the router's sentence model, if the version has one.

        Raises:
            WrongBaseModel: `bench` holds another base model than the version's.
        """
        if bundle and bundle.pool.groups and bundle.pool.base_model != bench.base.digest:
            raise WrongBaseModel(
                f"the version was tuned on base model {bundle.pool.base_model[:12]}, "
                f"{bench.base.settings.name} is {bench.base.digest[:12]}; name the folder of the right one"
            )
        self._bench, self._bundle = bench, bundle
        self._router = Router.of(bundle.pool, grouping or bundle.settings.grouping) if bundle else None

    def answer(self, requests: Sequence[Request], batch_rows: int = 16) -> list[Answer]:
        """Answers to `(instruction, input)` or `(instruction, input, images)`, in order.

        Raises:
            TooLong: a prompt that does not fit into the base model's context.
            SeesNoImages, ProcessorUnusable: images that the base model can't read.
        """
        routes = self._routes([request[0] for request in requests])
        alike: dict[tuple[str | None, str | None], list[int]] = defaultdict(list)
        for i, route in enumerate(routes):
            alike[route.group, route.nearest_task if route.group else None].append(i)
        texts = [""] * len(requests)
        for (group, name), members in alike.items():
            answers = self._answer_alike(group, name, [requests[i] for i in members], batch_rows)
            for i, text in zip(members, answers, strict=True):
                texts[i] = text.strip()
        return [
            Answer(text, route.group, route.similarity, route.nearest_task)
            for text, route in zip(texts, routes, strict=True)
        ]

    def _routes(self, instructions: Sequence[str]) -> list[Route]:
        return self._router.route_many(instructions) if self._router else [UNROUTED] * len(instructions)

    def _answer_alike(
        self, group: str | None, name: str | None, requests: Sequence[Request], batch_rows: int
    ) -> list[str]:
        """Answers of one adapter under one contract."""
        bench, bundle = self._bench, self._bundle
        task: Task | None = None
        adapter = None
        if bundle and group:
            adapter = bundle.adapters[group]
            task = bundle.tasks[next(e.task for e in bundle.pool.group(group).tasks if e.name == name)]
        if task and adapter and task.decoding.mode == "choose" and task.choices:
            evaluator = Evaluator(bench.trunk, bench.slot, batch_rows)
            first = task.choices[0]
            examples = [Example(question, text, first, images=tuple(*images)) for question, text, *images in requests]
            queries = [evaluator.query(task, example, group) for example in examples]
            return [p.text or "" for p in evaluator.predict(queries, {str(group): adapter})]
        if adapter:
            bench.slot.load(adapter)
        base, tokenizer = bench.base, bench.base.tokenizer
        prompts = [render_prompt(base.reader, base.settings, *request) for request in requests]
        limit = (task.decoding if task else FREE).max_new_tokens
        with nullcontext() if adapter else bench.slot.switched_off():
            results = generate_greedy(base.model, prompts, limit, tokenizer.eos_token_id, batch_rows, sight=base.sight)
        return [str(tokenizer.decode(each.tokens, skip_special_tokens=True)) for each in results]
