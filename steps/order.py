"""Order of a run: an immutable object, named by digest; steps read no file, database or environment beside it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from components.errors import LciaError
from components.grouping.pool import Pool
from components.grouping.router import GroupingDecision, decide
from components.quality.drift import GroupProposal
from components.settings import Settings, stored_settings
from components.storage.objects import ObjectStore, canonical, digest_of
from components.tasks import progress
from components.tasks.replaced import replaced_tasks
from components.tasks.reversal import Change, Reversal, read_change
from components.tasks.snapshot import Snapshot, load_snapshot

if TYPE_CHECKING:
    from components.model.ranks import Ranks
    from components.model.workbench import Workbench


class OtherBaseModel(LciaError):
    """The settings name another base model than the champion's."""


class Order(BaseModel):
    """Inputs of one run; every digest names an object of the store. `assess_task` runs on one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: str
    """Resolved settings."""
    package: str
    """The package as it was submitted."""
    parent: str | None = None
    """Pool manifest of the version to learn on, the champion or one that waits for people; None before any."""
    lineage: tuple[str, ...] = ()
    """Evaluation records of the parent and its ancestors, oldest first."""
    placed: str | None = None
    """A person's placement of a held task: a group id or `new`."""
    released: bool = False
    """True if a person let a task pass that was held for extreme drift."""
    forced: bool = False
    """True if a person wants a task learnt that the champion does already."""
    fingerprints: dict[str, str] = {}
    """Task digest -> keyed hashes of its rows, of the task to assess and of earlier ones; made by the worker, which
    alone reads the key."""

    def to_learn(self, assessment: str, **facts: Any) -> "LearnOrder":  # noqa: ANN401 - fields, checked by pydantic
        """Order to learn what an assessment says; `facts` are further fields of it."""
        return LearnOrder.model_validate({**self.model_dump(), **facts, "assessment": assessment})


class LearnOrder(Order):
    """Inputs of a run of `learn_task`."""

    assessment: str
    """Assessment record."""
    attempt: int = 1
    """Number of this attempt at the task."""
    looks: dict[str, int] = {}
    """By prior task, how many candidates were compared with its anchor before."""
    superseded: dict[str, str] = {}
    """Learnt tasks that people declared replaced: `name@version` -> of what replaces it."""
    known: dict[str, str] = {}
    """Outputs of steps already done under the same key."""
    scratch: str = ""
    """Name of the work area for checkpoints."""
    change: str | None = None
    """Change to evaluate, of wordings or a reversal; then nothing is tuned, and `assessment` is empty."""
    origin: str | None = None
    """Evidence of a version that learnt the same on a parent which people passed over: it is carried over."""


@dataclass(frozen=True)
class Context:
    """An opened order."""

    store: ObjectStore
    order: Order
    settings: Settings

    def pool(self, base_model: str) -> Pool:
        """The parent's pool, or an empty one on `base_model`."""
        if self.order.parent is None:
            return Pool.empty(self.settings.assistant, base_model)
        pool = Pool.from_manifest(self.store.get_json(self.order.parent))
        if base_model not in (NO_BASE_MODEL, pool.base_model):
            raise OtherBaseModel(
                f"the champion was tuned on base model {pool.base_model[:12]}, base_model.name is "
                f"{self.settings.base_model.name} ({base_model[:12]}): set it to the champion's, "
                "or let the other model learn every task again: `lcia rebase`"
            )
        return pool

    def bench(
        self, ranks: "Ranks", announce: Callable[[str], None] | None = None, adapters: Iterable[str] = ()
    ) -> "Workbench":
        """The loaded base model with a slot for `adapters`."""
        from components.model.workbench import Workbench

        bench = Workbench.load(self.settings, announce, ranks)
        bench.fit(self.store, adapters)
        return bench

    def adapters(self) -> list[str]:
        """The parent's adapters."""
        return [group.adapter for group in self.pool(NO_BASE_MODEL).groups]

    def prior(self) -> list[Snapshot]:
        """Snapshots of every task the parent has learnt."""
        if self.order.parent is None:
            return []
        pool = Pool.from_manifest(self.store.get_json(self.order.parent))
        return [load_snapshot(self.store, entry.task) for entry in pool.tasks()]

    def shortens(self, max_tokens: int) -> bool:
        """True if the parent was made with longer rows than `max_tokens`."""
        config = self.pool(NO_BASE_MODEL).config
        return config is not None and stored_settings(self.store.get_json(config)).base_model.longest > max_tokens

    def decision(self, snapshot: Snapshot) -> GroupingDecision:
        """Group that learns a task: the router's answer, or a person's if the order has one."""
        pool = self.pool(NO_BASE_MODEL)
        return decide(pool, snapshot.instructions(), self.settings.grouping, placement=self.order.placed)

    def proposal(self, snapshot: Snapshot) -> GroupProposal:
        """Tasks of the group that the task would join, for the data checks."""
        decision = self.decision(snapshot)
        if decision.action == "open" or decision.group is None:
            return GroupProposal()
        group = self.pool(NO_BASE_MODEL).group(decision.group)
        return GroupProposal(group.id, frozenset(entry.task for entry in group.tasks))

    def evaluation(self) -> dict[str, Any] | None:
        """The parent's evaluation record."""
        return self.store.get_json(self.order.lineage[-1]) if self.order.lineage else None

    def config(self, max_tokens: int) -> str:
        """Digest of the settings that a version's content depends on; stored as an object.

        `max_tokens` is the number that stands for `auto` with the base model at hand.
        """
        base = self.settings.base_model.model_copy(update={"max_tokens": max_tokens})
        return self.store.put_json(self.settings.model_copy(update={"base_model": base}).content())

    def report(self, what: str, count: int, total: int) -> None:
        """Report the progress of the run to people who watch."""
        progress.write(self.store, self.order.package, what, count, total)

    def put_html(self, html: str) -> str:
        """Store a report; returns its digest."""
        return self.store.put(html.encode())


@dataclass(frozen=True)
class LearnContext(Context):
    """An opened order to learn."""

    order: LearnOrder

    def assessment(self) -> dict[str, Any]:
        """The assessment record."""
        record: dict[str, Any] = self.store.get_json(self.order.assessment)
        return record

    def snapshot(self) -> Snapshot:
        """The task to learn, with the rows to learn it from, as the assessment says."""
        assessment = self.assessment()
        snapshot, rows = load_snapshot(self.store, assessment["task"]), assessment.get("rows")
        return snapshot.taught_from(rows["train"], rows["instructions"], rows.get("wordings")) if rows else snapshot

    def origin(self) -> dict[str, Any] | None:
        """A further evaluation record that may hold: of the version that is carried over, or that is gone back to."""
        change = self.change()
        before = change.before if isinstance(change, Reversal) else None
        if self.order.origin:
            before = self.store.get_json(self.order.origin)["evaluation"]
        return self.store.get_json(before) if before else None

    def origin_link(self) -> dict[str, str]:
        """The part of an evidence record that names the evidence of the version that is carried over, if one is."""
        return {"origin": self.order.origin} if self.order.origin else {}

    def change(self) -> Change | None:
        """The change to evaluate, if the run is about one."""
        return read_change(self.store.get_json(self.order.change)) if self.order.change else None

    def replacements(self) -> dict[str, str]:
        """Names of the parent's tasks that another replaces, maybe the one to learn -> `name@version` of that one."""
        pool, change = self.pool(NO_BASE_MODEL), self.change()
        learning = None if change else self.snapshot().task
        if isinstance(change, Reversal):
            pool = change.apply_to(pool)  # what it replaced is protected again
        return replaced_tasks(self.store, pool, self.order.superseded, learning)


def open_order(store: str, order: str) -> Context:
    """Read an order to assess and the settings it names."""
    objects = ObjectStore(store)
    content = Order.model_validate(objects.get_json(order))
    return Context(objects, content, Settings.model_validate(objects.get_json(content.settings)))


def open_learning(store: str, order: str) -> LearnContext:
    """Read an order to learn and the settings it names."""
    objects = ObjectStore(store)
    content = LearnOrder.model_validate(objects.get_json(order))
    return LearnContext(objects, content, Settings.model_validate(objects.get_json(content.settings)))


NO_BASE_MODEL = digest_of(canonical(None))
"""Stands for the base model's digest as long as no version exists and the model is not loaded."""
