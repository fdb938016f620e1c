"""Rebase: another base model learns the champion's tasks again; the result is a candidate."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.audit.log import Actor
from components.errors import LciaError
from components.gate.attempts import attempts, base_model_family
from components.promotion import candidates, judging
from components.promotion import rebase as judgement
from components.promotion.candidates import Candidate
from components.promotion.evidence import fallback_share
from components.promotion.rebase import Lesson
from components.registry.publication import publication
from components.settings import changed_keys
from components.storage.database import now
from components.storage.leases import Lease
from components.tasks.replaced import replaced_tasks
from lcia.instance import Instance
from lcia.lineage import hold_lineage
from lcia.operations import delivery
from lcia.worker import relearning
from lcia.worker.loop import Advance, Say, what_next
from lcia.worker.runs import Learning


class NothingToRebase(LciaError):
    """There is no champion, no other base model, or nothing that may be learnt again."""


class VersionUndecided(LciaError):
    """A candidate waits for people; if it is promoted, other tasks have to be learnt again."""


def rebase(instance: Instance, actor: Actor, say: Say) -> dict[str, Any]:
    """Learn every task of the champion again on the base model of the settings, and register the result.

    After an interruption it goes on: finished tasks are found again.

    Raises:
        NothingToRebase, VersionUndecided: see there.
        LineageBusy: a worker holds the lease.
        StepFailed: a step failed, with its own words.
    """
    with hold_lineage(instance.db, instance.assistant, "rebase") as lease:
        champion = _champion(instance)
        pool = instance.pool(champion.digest)
        replacements = replaced_tasks(instance.store, pool, instance.replacements())
        names = {entry.task: entry.name for entry in pool.tasks()}
        tasks = dict.fromkeys(record["task"] for record in instance.learnt(champion.digest))
        order = [task for task in tasks if names.get(task, "") not in {"", *replacements}]
        with instance.db.read() as connection:
            today = now(connection).date()
        lessons, losses = judgement.lessons(instance.store, pool, order, today)
        for name, why in losses.items():
            say(f"{name} is not learnt again: {why}")
        if not lessons:
            raise NothingToRebase("no task of the champion may be learnt again; their owners have to submit them again")
        results = list(_learn(Advance(instance, lease, actor, say), champion, lessons))
        candidate = _register(instance, lease, actor, champion, results, losses)
    say(f"  version {candidate.number}: gate {candidate.verdict}; {what_next(candidate, instance)}")
    delivery.settle(instance)
    standing = delivery.standing(instance, candidate.digest)
    for line in standing["registry_untold"]:
        say(f"  MLflow not updated yet: {line}")
    return {
        **candidate.to_json(),
        "learnt": [lesson.entry.name for lesson in lessons],
        "lost": losses,
        "superseded": sorted(replacements),
        **standing,
        "exit_code": 2 if judging.gate_stands_against(candidate.verdict, instance.settings.policy.gate) else 3,
    }


def _champion(instance: Instance) -> Candidate:
    champion = instance.champion()
    if champion is None:
        raise NothingToRebase("there is no champion yet: set base_model and `lcia run` the first task")
    with instance.db.read() as connection:
        pending = candidates.versions(connection, instance.assistant, "pending")
    if pending:
        number = pending[0].number
        raise VersionUndecided(
            f"version {number} ({pending[0].task_name}) waits for people: `lcia approve {number}` or "
            f"`lcia reject {number}` first; that decides what has to be learnt again"
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


def _learn(advance: Advance, champion: Candidate, lessons: Sequence[Lesson]) -> Iterator[Learning]:
    """Learn one lesson after the other, each on the result of the one before; the groups stay as they were."""
    instance, before = advance.instance, advance.instance.pool(champion.digest).base_model
    earlier = {record["task"]: record["assessment"] for record in instance.learnt(champion.digest)}
    for learning in relearning.learn_again(advance, lessons, earlier, None, (), {}):
        if instance.pool(instance.store.get_json(learning.evidence)["candidate"]).base_model == before:
            _same(instance)
        yield learning


def _register(
    instance: Instance,
    lease: Lease,
    actor: Actor,
    champion: Candidate,
    results: Sequence[Learning],
    losses: Mapping[str, str],
) -> Candidate:
    store, links = instance.store, [one.evidence for one in results]
    records = [store.get_json(link) for link in links]
    tunings = [store.get_json(record["tuning"]) for record in records]
    before = store.get_json(str(instance.evidence(champion)["evaluation"]))
    evaluation = judgement.against_champion(store, store.get_json(records[-1]["evaluation"]), champion.digest, before)
    task = evaluation["task"]
    family = base_model_family(instance.assistant, instance.settings.base_model.name)
    with instance.db.read() as connection:
        attempt = attempts(connection, family, instance.settings.policy.gate.attempts_window_days) + 1
    gate = judgement.judge(
        store,
        instance.settings,
        evaluation,
        tuple(losses),
        fallback=[share for tuning in tunings if (share := fallback_share(tuning)) is not None],
        attempt=attempt,
        looks=instance.anchor_looks(),
    )
    evidence = judgement.evidence_record(store, links, evaluation, gate, losses)
    costs = {name: sum(one.costs.get(name, 0.0) for one in results) for name in ("learn", "estimated")}
    lineage = [*(record["evaluation"] for record in records[:-1]), evidence["evaluation"]]
    with instance.db.begin() as connection:
        return candidates.register(
            connection,
            lease,
            assistant=instance.assistant,
            digest=evaluation["pool"],
            task=task,
            task_name=f"{len(results)} tasks{family.name}",
            parent=champion.digest,
            evidence=store.put_json(evidence),
            verdict=gate.verdict,
            submitted_by=actor.name,
            launched_by=actor.name,
            attempt=attempt,
            marks=["another base model", *(f"changed {key}" for key in changed_keys(instance.settings))],
            publication=publication(store, evidence, lineage, costs),
        )
