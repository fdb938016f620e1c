"""Evaluation of a change without learning: only rows that go to another adapter than before can differ."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from components.evaluation.carrying import Version
from components.evaluation.prior_tasks import PriorTasks
from components.evaluation.recheck import recheck
from components.grouping.order import learnt_order
from components.grouping.pool import Pool
from components.grouping.rewording import Rewording
from components.grouping.router import refit
from components.settings import changed_keys
from components.tasks.reversal import Change
from components.tasks.wordings import with_wordings

LEARNING = ("adapter", "tuning")
"""Sections of the settings that adapters are learnt by."""


@dataclass(frozen=True)
class Rerouting:
    """One evaluation of a candidate for which nothing was tuned: other wordings, or a task taken out."""

    tasks: PriorTasks
    replaced: Collection[str] = ()
    """Names of the champion's tasks that others replace."""

    def run(self, change: Change, config: str) -> str:
        """Route every test row of every task again, predict those that go elsewhere; the record's digest.

        Raises:
            WordingsRefused, ReversalRefused: the change does not fit the champion.
            EvaluationFailed: a carried prediction does not repeat.
        """
        tasks = self.tasks
        tasks.check_champion()
        pool = self._candidate(change, config)
        parent, candidate = (Version.of(each, tasks.settings) for each in (tasks.champion.pool, pool))
        before = tasks.under_champion(parent)
        after, moves = tasks.under_candidate(candidate, parent, before)
        name = next((entry.name for entry in pool.tasks() if entry.task == change.task), "")
        anchors = {task: anchor for task, anchor in tasks.anchors(after).items() if task in pool.groups_by_name()}
        before = {task: before[task] for task in after}
        record = {
            **tasks.record(pool, before, after, moves),
            "task": None,
            "anchors": anchors,
            "rewording": Rewording.of(candidate.router, parent.router, name).to_json(),
            "recheck": recheck(tasks.predictor, candidate, after, f"{change.task} {change.number}"),
        }
        return tasks.store.put_json(record)

    def _candidate(self, change: Change, config: str) -> Pool:
        champion, settings = self.tasks.champion, self.tasks.settings
        groups = change.apply_to(with_wordings(self.tasks.store, champion.pool))
        parents = () if champion.digest is None else (champion.digest,)
        own = {key for key in champion.pool.overrides if _is_of_learning(key)}
        overrides = tuple(sorted(own | {key for key in changed_keys(settings) if not _is_of_learning(key)}))
        pool = replace(groups, parents=parents, task=None, config=self._config(config), overrides=overrides)
        names = pool.groups_by_name()
        learnt = [name for name in learnt_order(self.tasks.store, champion.pool) if name in names]
        return refit(pool, settings.grouping, learnt, self.replaced)

    def _config(self, config: str) -> str:
        """The settings of the run, with those that the champion's adapters were learnt by: they stay what they are."""
        store, earlier = self.tasks.store, self.tasks.champion.pool.config
        if earlier is None:
            return config
        learnt_by = {name: store.get_json(earlier)[name] for name in LEARNING}
        return store.put_json({**store.get_json(config), **learnt_by})


def _is_of_learning(key: str) -> bool:
    return key.partition(".")[0] in LEARNING
