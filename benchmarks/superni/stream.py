"""A stream of task packages through a real installation: one person submits and works, another one approves.

The state folder is all there is: a call that was interrupted goes on where it was, and finished tasks are not
repeated.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import LciaError
from components.grouping.pool import Group
from components.settings import Settings, load_settings
from components.storage.objects import ObjectStore
from components.tasks.queue import OPEN, QueueItem
from components.tuning.rehearsal import batches, scale_shares
from infra import environment
from lcia.instance import Instance, actor
from lcia.operations import decisions, tasks
from lcia.operations.costs import costs_of
from lcia.worker import loop

SITE, SECOND = actor("site"), actor("second-person")
ROUNDS = 4
"""Most times that a task is worked on: it may be held for its place and for its drift, and is then answered."""
FACTS = "stream.jsonl"


@dataclass(frozen=True)
class Visits:
    """Rows that optimizer steps read, counted as often as they were read."""

    new: int
    old: int
    """Kept and recalled rows of earlier tasks."""

    @property
    def total(self) -> int:
        """Both."""
        return self.new + self.old


def open_state(home: Path, overrides: Sequence[str]) -> Instance:
    """The state in `home`, under the shipped settings with `overrides`; a process opens one."""
    environment.prepare(home)
    environment.stay_offline()
    return Instance.open(home, load_settings(None, overrides, {}, home))


def learn_all(instance: Instance, packages: Iterable[Path], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Bring the packages through the worker, in order; returns the facts of each, those of earlier calls included."""
    file = instance.home / FACTS
    facts = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    ended = {one["task"] for one in facts}
    for package in packages:
        if package.name in ended:
            continue
        wall, cpu = time.monotonic(), _cpu_seconds()
        item, answers = _learn(instance, package, say)
        own = {
            "task": package.name,
            "state": item.state,
            "reason": item.reason,
            "answers": answers,
            "wall_seconds": round(time.monotonic() - wall, 1),
            "cpu_seconds": round(_cpu_seconds() - cpu, 1),
            **_evidence(instance, item),
            "state_bytes": folder_bytes(instance.home),
        }
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(own) + "\n")
        facts.append(own)
        say(f"  {own['state']} after {own['wall_seconds']:.0f} s ({own['cpu_seconds']:.0f} s of CPU)")
    return facts


def _learn(instance: Instance, package: Path, say: Callable[[str], None]) -> tuple[QueueItem, list[str]]:
    """Submit, work, answer what is held, approve; the item as it ends and the answers of the second person."""
    answers: list[str] = []
    item = tasks.submit(instance, package, SITE)
    for _ in range(ROUNDS):
        if item.state in OPEN:
            item = next((one for one in loop.work(instance, SITE, say, item.id) if one.id == item.id), item)
        if item.state != "held":
            break
        answers.append(answer_held(instance, item))
        item = tasks.submit(instance, package, SITE)
    candidate = tasks.candidate_of(instance, item)
    if item.state == "candidate" and candidate is not None:
        try:
            decisions.approve(instance, str(candidate.number), SECOND, f"benchmark: gate {candidate.verdict}")
        except LciaError as refusal:
            decisions.reject(instance, str(candidate.number), SECOND, f"benchmark: {refusal}")
        item = tasks.submit(instance, package, SITE)
    return item, answers


def answer_held(instance: Instance, item: QueueItem) -> str:
    """Answer a task that is held: the nearest group where two are close, else it may go on."""
    record = instance.store.get_json(item.reports["assessment"])
    if record["grouping"]["action"] == "hold":
        group = record["grouping"]["scores"][0]["group"]
        tasks.regroup(instance, SECOND, item.id, group, "benchmark: the nearest group")
        return f"into {group}, the nearest group"
    tasks.release(instance, SECOND, item.id, "benchmark: every task of the stream is learnt")
    return f"released: {item.reason}"


def _evidence(instance: Instance, item: QueueItem) -> dict[str, Any]:
    """Facts of a task's evaluation, tuning and checks; fewer if it came to no version."""
    store, facts = instance.store, dict[str, Any]()
    if "assessment" in item.reports:
        record = store.get_json(item.reports["assessment"])
        aside = store.get_json(record["validation"])["quarantined_rows"]
        facts["set_aside"] = dict(Counter(f"{row['split']}: {row['reason']}" for row in aside))
    candidate = tasks.candidate_of(instance, item)
    if candidate is None:
        return facts
    evidence = instance.evidence(candidate)
    evaluation, tuning = store.get_json(evidence["evaluation"]), store.get_json(evidence["tuning"])
    pool = instance.pool(candidate.parent) if candidate.parent else None
    group = pool.group(tuning["group"]) if pool and tuning["group"] else None
    visits, cost = count_visits(store, instance.settings, tuning, group), costs_of(instance, item)
    return {
        **facts,
        "verdict": candidate.verdict,
        "group": instance.pool(candidate.digest).groups_by_name()[item.name],
        "group_tasks": 1 + len(group.tasks if group else ()),
        "learn_seconds": cost["actual"]["seconds"] if cost else None,
        "groups": len(instance.pool(candidate.digest).groups),
        "chosen": evaluation["chosen"],
        "predicted": evaluation["predicted"],
        "carried": evaluation["carried"],
        "visits_new": visits.new,
        "visits_old": visits.old,
    }


def count_visits(store: ObjectStore, settings: Settings, tuning: dict[str, Any], group: Group | None) -> Visits:
    """Rows that the steps of a tuning record read; `group` is the one that was tuned, as it was before (None: new)."""
    own, entries = settings.tuning, group.tasks if group else ()
    with_rows = [entry for entry in entries if entry.kept_rows and store.why_erased(entry.kept_rows) is None]
    rehearsal = with_rows if own.rehearsal.share > 0 else []
    recall = [entry for entry in entries if own.pseudo_rehearsal.tasks == "all" or entry not in rehearsal]
    shares = scale_shares(own, len(rehearsal), len(recall), len(entries))
    sources = [
        (tuning["rehearsed_rows"], shares.rehearsal.share),
        (tuning["recalled_rows"], shares.pseudo_rehearsal.share),
    ]
    plan = batches(tuning["rows"], sources, len(tuning["losses"]), own.batch_size, own.seed)
    new = own.batch_size * len(plan)
    return Visits(new, sum(map(len, plan)) - new)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def _cpu_seconds() -> float:
    """CPU time of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
