"""Wordings of learnt tasks: what they are, what is proposed, and changes, which become candidates without training."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from components.audit.log import Actor
from components.grouping.pool import GroupTask, Pool
from components.storage.database import now
from components.storage.objects import Json
from components.tasks import proposals, queue
from components.tasks.proposals import WordingProposal
from components.tasks.queue import QueueItem
from components.tasks.replaced import replaced_tasks
from components.tasks.reversal import Change
from components.tasks.snapshot import load_snapshot
from components.tasks.wordings import WordingChange, WordingsRefused, clean_wording, with_wordings
from lcia.instance import Instance


@dataclass(frozen=True)
class TaskWordings:
    """A task of the champion."""

    entry: GroupTask
    label: str
    owner: str


def learnt_tasks(instance: Instance) -> list[TaskWordings]:
    """Tasks of the champion whose package is still known, each with its wordings."""
    champion = instance.champion()
    if champion is None:
        return []
    tasks = []
    for entry in with_wordings(instance.store, instance.pool(champion.digest)).tasks():
        if instance.store.exists(entry.task):
            task = load_snapshot(instance.store, entry.task).task
            tasks.append(TaskWordings(entry, task.label, task.owner))
    return tasks


def need_task(instance: Instance, name: str) -> TaskWordings:
    """A task of the champion by its name or `name@version`.

    Raises:
        WordingsRefused: the champion has learnt no such task.
    """
    tasks = learnt_tasks(instance)
    for task in tasks:
        if name in (task.entry.name, task.label):
            return task
    names = ", ".join(task.entry.name for task in tasks) or "none yet"
    raise WordingsRefused(f"the champion has learnt no task {name!r}; it knows {names}")


def wordings(instance: Instance, task: str | None = None) -> dict[str, Any]:
    """Ways to ask for the champion's tasks, or for one, and the proposals that wait for people."""
    tasks = learnt_tasks(instance) if task is None else [need_task(instance, task)]
    with instance.db.read() as connection:
        waiting = proposals.waiting_for_people(connection, instance.assistant)
    digests = {each.entry.task for each in tasks}
    return {
        "tasks": [
            {
                "task": each.entry.name,
                "label": each.label,
                "owner": each.owner,
                "instructions": list(each.entry.instructions),
                "wordings": list(each.entry.wordings),
            }
            for each in tasks
        ],
        "proposals": [each.to_json() for each in waiting if each.task in digests],
    }


def change(
    instance: Instance, actor: Actor, task: str, add: Sequence[str] = (), remove: Sequence[str] = ()
) -> dict[str, Json]:
    """Give a task further wordings or take some from it; a worker makes a candidate of that.

    Raises:
        WordingsRefused: the champion has not learnt the task, or the change changes nothing.
    """
    learnt = need_task(instance, task)
    with instance.db.begin() as connection:
        return _submit(instance, connection, actor, learnt, tuple(map(clean_wording, add)), tuple(remove)).to_json()


def propose(instance: Instance, actor: Actor, task: str, texts: Sequence[str]) -> dict[str, Any]:
    """Put wordings that a model made before people; those that the task has already are left out.

    Raises:
        WordingsRefused: the champion has not learnt the task, or a text can't be a wording.
    """
    learnt = need_task(instance, task)
    fresh = [text for text in map(clean_wording, texts) if text not in learnt.entry.texts]
    with instance.db.begin() as connection:
        new = proposals.propose(
            connection,
            instance.assistant,
            learnt.entry.task,
            learnt.label,
            fresh,
            source="model",
            made_by=actor.name,
        )
    return {"task": learnt.entry.name, "new": new}


def keep_unrouted(instance: Instance, actor: Actor, requests: Sequence[tuple[str, str]]) -> None:
    """Put requests that no task answered before people, as wordings of the task that was nearest.

    `requests` are names of tasks with texts; those of tasks that the champion has not learnt, and texts that can't be
    wordings, are dropped. What is older than `gateway.keep_days` is deleted.
    """
    tasks = {each.entry.name: each for each in learnt_tasks(instance)}
    texts: dict[str, list[str]] = {}
    for name, text in requests:
        with contextlib.suppress(WordingsRefused):
            texts.setdefault(name, []).append(clean_wording(text))
    with instance.db.begin() as connection:
        oldest = now(connection) - timedelta(days=instance.settings.gateway.keep_days)
        proposals.forget(connection, before=oldest)
        for name in texts.keys() & tasks.keys():
            entry, label = tasks[name].entry, tasks[name].label
            new = [text for text in texts[name] if text not in entry.texts]
            proposals.propose(
                connection, instance.assistant, entry.task, label, new, source="request", made_by=actor.name
            )


def answer(instance: Instance, actor: Actor, numbers: Sequence[int], *, accept: bool) -> dict[str, Any]:
    """Accept proposed wordings, which makes one change for each task, or decline them.

    Raises:
        ProposalUnknown: one is not there, or was decided.
        WordingsRefused: the champion has not learnt a task any more, or has the wording already.
    """
    tasks = {each.entry.task: each for each in learnt_tasks(instance)}
    items: list[QueueItem] = []
    with instance.db.begin() as connection:
        matches = proposals.find(connection, instance.assistant, numbers)
        if not accept:
            proposals.decide(connection, matches, "declined", actor.name)
            return {"declined": [each.id for each in matches], "items": []}
        for digest in dict.fromkeys(each.task for each in matches):
            mine = [each for each in matches if each.task == digest]
            if digest not in tasks:
                raise WordingsRefused(f"the champion has not learnt {mine[0].label} any more; decline its proposals")
            items.append(_accept(instance, connection, actor, tasks[digest], mine))
    return {"declined": [], "items": [item.to_json() for item in items]}


def _accept(
    instance: Instance, connection: Connection, actor: Actor, learnt: TaskWordings, mine: Sequence[WordingProposal]
) -> QueueItem:
    item = _submit(instance, connection, actor, learnt, tuple(each.text for each in mine), ())
    proposals.decide(connection, mine, "accepted", actor.name, item.id)
    return item


def _submit(
    instance: Instance,
    connection: Connection,
    actor: Actor,
    learnt: TaskWordings,
    add: tuple[str, ...],
    remove: tuple[str, ...],
) -> QueueItem:
    """Put a change into the queue, checked against the version that it will be made on and its other tasks."""
    base = instance.base()
    assert base is not None  # noqa: S101 - the champion has learnt the task
    pool = with_wordings(instance.store, instance.pool(base.digest))
    _need_nobody_elses(instance, pool, learnt, add)
    number = len(proposals.changes_of(connection, instance.assistant, learnt.label)) + 1
    change_ = WordingChange(learnt.entry.task, learnt.label, number, add, remove)
    change_.apply_to(pool)
    return submit_change(instance, connection, actor, learnt, change_)


def submit_change(
    instance: Instance, connection: Connection, actor: Actor, learnt: TaskWordings, change_: Change, reason: str = ""
) -> QueueItem:
    """Put a change of a learnt task into the queue, under the task's name and owner; `reason` goes into the log."""
    return queue.submit(
        connection,
        assistant=instance.assistant,
        package=instance.store.put_json(change_.to_json()),
        name=learnt.label.partition("@")[0],
        version=change_.version,
        owner=learnt.owner,
        submitted_by=actor,
        reason=reason,
    )


def _need_nobody_elses(instance: Instance, pool: Pool, learnt: TaskWordings, add: Sequence[str]) -> None:
    """Refuse wordings that another task has, unless a later one replaces it: the newer task would take its requests."""
    successors = replaced_tasks(instance.store, pool, instance.replacements())
    for other in learnt_tasks(instance):
        if other.entry.task != learnt.entry.task and other.entry.name not in successors:
            texts = {" ".join(text.split()) for text in other.entry.texts}
            for text in add:
                if text in texts:
                    raise WordingsRefused(f"{text!r} is a way to ask for {other.label} already; leave it to that task")
