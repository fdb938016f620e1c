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
from components.grouping.route import UNROUTED, Route
from components.grouping.router import Router
from components.model.adapters import first_layer_of
from components.model.generation import generate_greedy
from components.model.prompts import Rendered, answer_tokens, render_prompt
from components.model.workbench import Workbench
from components.serving.bundle import Bundle
from components.serving.contract import Contract, contract_of
from components.settings import Fallback, GroupingSettings
from components.tasks.images import Picture

Request: TypeAlias = tuple[str, str | None] | tuple[str, str | None, Sequence[Picture]]
"""Instruction and input, and the images they are about."""


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

    def answer(
        self, requests: Sequence[Request], batch_rows: int = 16, fallback: Fallback | None = None
    ) -> list[Answer]:
        """Answers to `(instruction, input)` or `(instruction, input, images)`, in order.

        Raises:
            TooLong: a prompt that does not fit into the base model's context.
            SeesNoImages, ProcessorUnusable: images that the base model can't read.
        """
        base = self._bench.base
        routes = self._routes(requests, fallback)
        prompts = [render_prompt(base.reader, base.settings, *request) for request in requests]
        alike: dict[Contract, list[int]] = defaultdict(list)
        for i, route in enumerate(routes):
            alike[contract_of(self._bundle, route)].append(i)
        texts = [""] * len(requests)
        for contract, members in alike.items():
            answers = self._answer_alike(contract, [prompts[i] for i in members], batch_rows)
            for i, text in zip(members, answers, strict=True):
                texts[i] = text.strip()
        return [
            Answer(text, route.group, route.similarity, route.nearest_task)
            for text, route in zip(texts, routes, strict=True)
        ]

    def _routes(self, requests: Sequence[Request], fallback: Fallback | None) -> list[Route]:
        if self._router is None:
            return [UNROUTED] * len(requests)
        instructions, inputs = [request[0] for request in requests], [request[1] for request in requests]
        return self._router.route_many(instructions, inputs, fallback)

    def _answer_alike(self, contract: Contract, prompts: Sequence[tuple[int, ...]], batch_rows: int) -> list[str]:
        """Answers under one contract."""
        if contract.question:
            return [contract.question] * len(prompts)
        bench, base = self._bench, self._bench.base
        adapter = self._bundle.adapters[contract.group] if self._bundle and contract.group else None
        if adapter:
            bench.cover(first_layer_of(adapter))
        if contract.choices:
            evaluator = Evaluator(bench.trunk, bench.slot, batch_rows)
            answers = [answer_tokens(base.reader, choice) for choice in contract.choices]
            rows = [Rendered(prompt, answer) for prompt in prompts for answer in answers]
            likelihoods = iter(evaluator.likelihoods(rows, adapter))
            return [contract.choose([next(likelihoods) for _ in answers], answers) for _ in prompts]
        if adapter:
            bench.slot.load(adapter)
        limit = contract.decoding.max_new_tokens
        with nullcontext() if adapter else bench.slot.switched_off():
            results = generate_greedy(base.model, prompts, limit, base.ends, batch_rows, sight=base.sight)
        return [str(base.tokenizer.decode(each.tokens, skip_special_tokens=True)) for each in results]
