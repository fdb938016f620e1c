"""`lcia rebase`: another base model learns the champion's tasks again, and becomes a candidate."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.audit.log import Actor
from components.errors import LciaError
from components.gate.attempts import attempts, base_model_family
from components.grouping.pool import Pool
from components.promotion import approvals, candidates
from components.promotion import rebase as rebasing
from components.promotion.candidates import Candidate
from components.promotion.evidence import fallback_share, replaced_tasks
from components.promotion.rebase import Lesson
from components.registry.publication import publication
from components.settings import changed_keys
from components.storage.database import now
from components.storage.leases import Lease
from components.tasks import queue
from lcia.instance import Instance
from lcia.lineage import hold_lineage
from lcia.operations import delivery
from lcia.worker.loop import Advance, LearningResult, Say, make_order, what_next


class NothingToRebase(LciaError):
    """There is no champion, no other base model, or nothing that may be learnt again."""


class VersionUndecided(LciaError):
    """A candidate waits for people: whether it is promoted decides what has to be learnt again."""


def rebase(instance: Instance, actor: Actor, say: Say) -> dict[str, Any]:
    """Learn every task of the champion again on the base model of the settings, and register the result.

    Where it was interrupted it goes on: finished tasks are found again.

    Raises:
        NothingToRebase, VersionUndecided: see there.
        LineageBusy: a worker is at work.
        StepFailed: a step failed, with its own words.
    """
    with hold_lineage(instance.db, instance.assistant, "rebase") as lease:
        champion = _champion(instance)
        pool = instance.pool(champion.digest)
        replaced = replaced_tasks(instance.store, pool, instance.superseded())
        names = {entry.task: entry.name for entry in pool.tasks()}
        order = [r["task"] for r in instance.learnt(champion.digest) if names.get(r["task"], "") not in {"", *replaced}]
        with instance.db.read() as connection:
            today = now(connection).date()
        lessons, lost = rebasing.lessons(instance.store, pool, order, today)
        for name, why in lost.items():
            say(f"{name} is not learnt again: {why}")
        if not lessons:
            raise NothingToRebase("no task of the champion may be learnt again; their owners have to submit them again")
        learnt = list(_learn(Advance(instance, lease, actor, say), champion, lessons))
        candidate = _register(instance, lease, actor, champion, learnt, lost)
    say(f"  version {candidate.number}: gate {candidate.verdict}; {what_next(candidate, instance)}")
    delivery.settle(instance)
    told = delivery.standing(instance, candidate.digest)
    for line in told["registry_untold"]:
        say(f"  MLflow not updated yet: {line}")
    return {
        **candidate.to_json(),
        "learnt": [lesson.entry.name for lesson in lessons],
        "lost": lost,
        "superseded": sorted(replaced),
        **told,
        "exit_code": 2 if approvals.gate_stands_against(candidate.verdict, instance.settings.policy.gate) else 3,
    }


def _champion(instance: Instance) -> Candidate:
    champion = instance.champion()
    if champion is None:
        raise NothingToRebase("there is no champion yet: set base_model and `lcia run` the first task")
    with instance.db.read() as connection:
        undecided = candidates.versions(connection, instance.assistant, "pending")
    if undecided:
        number = undecided[0].number
        raise VersionUndecided(
            f"version {number} ({undecided[0].task_name}) waits for people: `lcia approve {number}` or "
            f"`lcia reject {number}` first, for that decides what has to be learnt again"
        )
    config = instance.pool(champion.digest).config
    if (
        config is not None
        and instance.store.get_json(config)["base_model"] == instance.settings.content()["base_model"]
    ):
        _same(instance)
    return champion


def _same(instance: Instance) -> None:
    raise NothingToRebase(
        f"base_model.name is {instance.settings.base_model.name}, the champion's own; name the other model in "
        "zenml.yaml, or with --set base_model.name=..."
    )


def _learn(advance: Advance, champion: Candidate, lessons: Sequence[Lesson]) -> Iterator[LearningResult]:
    """One `learn_task` run after the other, each on what came before; the groups stay as they were."""
    instance, parent, lineage = advance.instance, None, []
    earlier = {record["task"]: record["assessment"] for record in instance.learnt(champion.digest)}
    with instance.db.read() as connection:
        made_by = {v.task: v.item for v in candidates.versions(connection, instance.assistant) if v.item is not None}
        items = {task: queue.item(connection, item) for task, item in made_by.items() if item is not None}
    placed: dict[str, str] = {}
    pool, old = (
        Pool.empty(instance.assistant, instance.pool(champion.digest).base_model),
        instance.pool(champion.digest),
    )
    for lesson in lessons:
        item, task = items[lesson.entry.task], lesson.entry.task
        at = placed.get(lesson.group, "new")
        before = instance.store.get_json(earlier[task])
        record = rebasing.reassess(instance.store, instance.settings, before, lesson, pool, parent, at)
        assessment = instance.store.put_json(record)
        order = make_order(instance, item.package, None).to_learn(assessment, parent=parent, lineage=tuple(lineage))
        learnt = advance.learn(item, order)
        evidence = instance.store.get_json(learnt.evidence)
        parent, pool = evidence["candidate"], instance.pool(evidence["candidate"])
        if pool.base_model == old.base_model:
            _same(instance)
        lineage.append(evidence["evaluation"])
        group = pool.group_of(task)
        assert group is not None  # noqa: S101 - it has just learnt it
        placed[lesson.group] = group.id
        yield learnt


def _register(
    instance: Instance,
    lease: Lease,
    actor: Actor,
    champion: Candidate,
    learnt: Sequence[LearningResult],
    lost: Mapping[str, str],
) -> Candidate:
    store, links = instance.store, [one.evidence for one in learnt]
    records = [store.get_json(link) for link in links]
    tunings = [store.get_json(record["tuning"]) for record in records]
    before = store.get_json(str(instance.evidence(champion)["evaluation"]))
    evaluation = rebasing.against_champion(store, store.get_json(records[-1]["evaluation"]), champion.digest, before)
    task = evaluation["task"]
    family = base_model_family(instance.assistant, instance.settings.base_model.name)
    with instance.db.read() as connection:
        attempt = attempts(connection, family, instance.settings.policy.gate.attempts_window_days) + 1
    gate = rebasing.judge(
        store,
        instance.settings,
        evaluation,
        tuple(lost),
        fallback=[share for tuning in tunings if (share := fallback_share(tuning)) is not None],
        attempt=attempt,
        looks=instance.anchor_looks(),
    )
    evidence = rebasing.evidence_record(store, links, evaluation, gate, lost)
    costs = {name: sum(one.costs.get(name, 0.0) for one in learnt) for name in ("learn", "estimated")}
    lineage = [*(record["evaluation"] for record in records[:-1]), evidence["evaluation"]]
    with instance.db.begin() as connection:
        return candidates.register(
            connection,
            lease,
            assistant=instance.assistant,
            digest=evaluation["pool"],
            task=task,
            task_name=f"{len(learnt)} tasks{family.name}",
            parent=champion.digest,
            evidence=store.put_json(evidence),
            verdict=gate.verdict,
            submitted_by=actor.name,
            launched_by=actor.name,
            attempt=attempt,
            marks=["another base model", *(f"changed {key}" for key in changed_keys(instance.settings))],
            publication=publication(store, evidence, lineage, costs),
        )
