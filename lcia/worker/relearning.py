"""Tasks that are learnt again: those that a group learnt after one that is taken out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.evaluation.reports import gate_html
from components.grouping.pool import GroupTask, Pool
from components.promotion import candidates
from components.promotion import rebase as judgement
from components.promotion.evidence import change_card, evidence_record, fallback_share
from components.promotion.rebase import Lesson
from components.storage.database import now
from components.tasks import queue
from components.tasks.queue import QueueItem
from components.tasks.reversal import Reversal
from lcia.instance import Instance
from lcia.worker.runs import Learning, make_order, tune_key
from steps.order import NO_BASE_MODEL, LearnOrder

if TYPE_CHECKING:
    from lcia.worker.loop import Advance


def followers(instance: Instance, change: Reversal, parent: str) -> tuple[GroupTask, ...]:
    """Tasks to learn again, in the order in which the group learnt them."""
    return change.followers(instance.pool(parent))


def items_of(instance: Instance) -> dict[str, QueueItem]:
    """Queue item of each task that a version learnt, by the task's digest."""
    with instance.db.read() as connection:
        made_by = {v.item: v.task for v in candidates.versions(connection, instance.assistant) if v.item is not None}
        tasks = [each for each in queue.items(connection, instance.assistant) if not each.is_change]
    return {made_by[item.id]: item for item in tasks if item.id in made_by}


def learn_again(
    worker: "Advance",
    lessons: Sequence[Lesson],
    assessments: Mapping[str, str],
    parent: str | None,
    lineage: Sequence[str],
    groups: Mapping[str, str],
) -> Iterator[Learning]:
    """Learn one lesson after the other, each on the result of the one before, the first on `parent`.

    `assessments`: by task, the assessment of when it came. `groups`: a lesson's group -> that of the new line; a group
    that is not in it is opened by its first lesson.
    """
    instance, line, places = worker.instance, list(lineage), dict(groups)
    items = items_of(instance)
    for lesson in lessons:
        task = lesson.entry.task
        pool = instance.pool(parent) if parent else Pool.empty(instance.assistant, NO_BASE_MODEL)
        before = instance.store.get_json(assessments[task])
        at = places.get(lesson.group, "new")
        record = judgement.reassess(instance.store, instance.settings, before, lesson, pool, parent, at)
        assessment = instance.store.put_json(record)
        order = make_order(instance, items[task].package, None).to_learn(assessment, parent=parent, lineage=tuple(line))
        learning = worker.learn(items[task], order, tune_key(instance.store, instance.settings, order))
        evidence = instance.store.get_json(learning.evidence)
        parent = evidence["candidate"]
        line.append(evidence["evaluation"])
        group = instance.pool(evidence["candidate"]).group_of(task)
        assert group is not None  # noqa: S101 - it has just learnt it
        places[lesson.group] = group.id
        yield learning


def learn_followers(worker: "Advance", change: Reversal, parent: str, without: Learning, order: LearnOrder) -> Learning:
    """Learn the followers of a task again on the version `without` all of them; the result has evidence of its own.

    It is judged as one step against the parent: every task of it, row by row.
    """
    instance, store = worker.instance, worker.instance.store
    start, pool = store.get_json(without.evidence), instance.pool(parent)
    tasks = [entry.task for entry in followers(instance, change, parent)]
    with instance.db.read() as connection:
        today = now(connection).date()
    lessons, losses = judgement.lessons(store, pool, tasks, today)
    for name, why in losses.items():
        worker.say(f"{name} is not learnt again: {why}")
    own = pool.group_of(change.task)
    assert own is not None  # noqa: S101 - it has the followers
    stays = any(group.id == own.id for group in instance.pool(start["candidate"]).groups)
    assessments = {record["task"]: record["assessment"] for record in instance.learnt(parent)}
    results = list(
        learn_again(
            worker,
            lessons,
            assessments,
            start["candidate"],
            [*order.lineage, start["evaluation"]],
            {own.id: own.id} if stays else {},
        )
    )
    links = [one.evidence for one in results]
    records = [store.get_json(link) for link in links]
    last = records[-1] if records else start
    before, after = store.get_json(order.lineage[-1]), store.get_json(last["evaluation"])
    evaluation = {**judgement.against_champion(store, after, parent, before), "task": None}
    gate = judgement.judge(
        store,
        instance.settings,
        evaluation,
        tuple(losses),
        fallback=[s for r in records if (s := fallback_share(store.get_json(r["tuning"]))) is not None],
        attempt=order.attempt,
        looks=order.looks,
        other_base=False,
    )
    own_pages = {name: page for name, page in last["reports"].items() if name in start["reports"]}
    report = gate.to_json()
    pages = {"gate": gate_html(report), "card": change_card(store, evaluation, change, gate)}
    evidence = {
        **evidence_record(
            evaluation,
            change.task,
            store.put_json(report),
            {**own_pages, **{name: store.put(page.encode()) for name, page in pages.items()}},
            evaluation=store.put_json(evaluation),
            reversal=str(order.change),
        ),
        "relearnt": {"links": links, "lost": dict(losses)},
    }
    costs: dict[str, Any] = {name: sum(one.costs.get(name, 0.0) for one in results) for name in ("learn", "estimated")}
    worker.say(f"  learnt again: {', '.join(lesson.entry.name for lesson in lessons) or 'nothing'}")
    return Learning(store.put_json(evidence), without.run, costs)
