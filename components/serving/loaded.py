"""A version that is ready to be asked: its router and contracts, and the reader of its base model, without weights."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from components.grouping.route import UNROUTED, Route
from components.grouping.router import Router
from components.model.base import BaseModelError, locate
from components.model.prompts import Reader, TooLong, render_turns
from components.serving.bundle import Bundle
from components.serving.contract import BASE, Contract, contract_of, contract_of_task
from components.serving.conversation import Conversation
from components.settings import MACHINE, BaseModelSettings, Fallback, GroupingSettings, Settings

DENSEST = 64
"""Characters for each token of the base model's limit, beyond which a conversation is not even read."""


def settings_of(bundle: Bundle | None, here: Settings) -> Settings:
    """Settings of this machine with what a version fixed: its base model, system prompt, limits and adapters' shape.

    The base model keeps the place that the settings here name, if that place holds the very model.
    """
    if bundle is None or not bundle.pool.groups:
        return here
    own, keys = bundle.settings.base_model, list(MACHINE)
    with suppress(BaseModelError):
        if locate(here.base_model, Path(here.storage.models))[1] == bundle.pool.base_model:
            keys += ["name", "revision"]
    base = own.model_copy(update={name: getattr(here.base_model, name) for name in keys})
    return here.model_copy(update={"base_model": base, "adapter": bundle.settings.adapter})


@dataclass(frozen=True)
class Question:
    """A request that found its way: the tokens to read, and the contract to answer by."""

    prompt: tuple[int, ...]
    contract: Contract
    route: Route
    named: bool
    """True if the caller named the task, or the base model: no router was involved."""
    is_row: bool
    """True if the conversation has the form in which the gate's rows are evaluated."""


@dataclass(eq=False)
class Loaded:
    """One version (digest None: the base model alone) in memory; requests hold it while they run."""

    number: int | None
    digest: str | None
    bundle: Bundle | None
    base: BaseModelSettings
    reader: Reader
    router: Router | None
    adapters: frozenset[str] = frozenset()
    requests: int = field(default=0)
    """Requests under way."""

    @classmethod
    def of(
        cls,
        number: int | None,
        bundle: Bundle | None,
        base: BaseModelSettings,
        reader: Reader,
        grouping: GroupingSettings,
    ) -> "Loaded":
        """A version; `grouping` names the folder of the router's sentence model, if the version has one."""
        if bundle is None:
            return cls(None, None, None, base, reader, None)
        adapters = frozenset(group.adapter for group in bundle.pool.groups)
        router = Router.of(bundle.pool, grouping)
        return cls(number, bundle.version, bundle, base, reader, router, adapters)

    def question(
        self,
        conversation: Conversation,
        *,
        task: str | None = None,
        alone: bool = False,
        choices: Sequence[str] = (),
        fallback: Fallback | None = None,
    ) -> Question:
        """Tokens and contract of a request: of the nearest task, of `task` by name, or of the base model `alone`.

        Raises:
            NoSuchTask: the version has not learnt `task`.
            TooLong, ContentRefused, SeesNoImages, ProcessorUnusable: the base model can't read it.
        """
        size, most = sum(len(content) for _, content in conversation.turns), DENSEST * self.base.longest
        if size > most:  # seconds of work, for a refusal
            raise TooLong(
                f"the conversation has {size} characters, expected at most {most} where base_model.max_tokens is "
                f"{self.base.longest}; send a shorter one"
            )
        route, contract = UNROUTED, BASE
        if task is not None and self.bundle is not None:
            contract = contract_of_task(self.bundle, task, choices)
            route = Route(contract.group, 1.0, 0.0, contract.task, exact=True)
        elif not alone and self.router is not None:
            route = conversation.route(self.router, fallback)
            contract = contract_of(self.bundle, route, choices)
        prompt = render_turns(self.reader, self.base, conversation.complete(self.base), conversation.images)
        return Question(prompt, contract, route, alone or task is not None, conversation.is_row(self.base))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks it has learnt."""
        return tuple(entry.name for entry in self.bundle.pool.tasks()) if self.bundle else ()
