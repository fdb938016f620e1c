"""Which tasks others replace, whichever way it was declared."""

from components.grouping.pool import Group, GroupTask, Pool
from components.storage.objects import ObjectStore
from components.tasks.replaced import replaced_tasks, replacements
from components.tasks.task_file import Task


def _task(name: str, version: str = "1", owner: str = "site", supersedes: str | None = None) -> Task:
    told = {"name": name, "version": version, "owner": owner, "supersedes": supersedes}
    return Task(description="x", licence="CC0-1.0", **told)  # type: ignore[arg-type]


def test_a_package_replaces_a_task_of_its_own_owner_only() -> None:
    old, new = _task("a"), _task("a", "2", supersedes="a@1")
    assert replacements([old, new], {}) == {"a@1": "a@2"}
    assert replacements([old, _task("b", owner="other", supersedes="a@1")], {}) == {}
    assert replacements([new], {}) == {}, "what was never learnt can't be replaced"


def test_a_person_may_replace_any_learnt_task() -> None:
    tasks = [_task("a"), _task("b", owner="other")]
    assert replacements(tasks, {"a@1": "b@1", "c@1": "b@1", "b@1": "c@1"}) == {"a@1": "b@1"}


def test_packages_can_not_undo_what_people_declared() -> None:
    tasks = [_task("a", supersedes="b@1"), _task("b")]
    assert replacements(tasks, {"a@1": "b@1"}) == {"a@1": "b@1"}


def test_a_task_that_is_being_learnt_replaces_one_of_the_pool(store: ObjectStore, take_example) -> None:
    old = take_example("movie_sentiment")
    pool = Pool("assistant", "b" * 64, groups=(Group("g1", "a" * 64, None, (GroupTask(old.digest, "films", ("x",)),)),))
    new = old.task.model_copy(update={"version": "2", "supersedes": old.task.label})
    assert replaced_tasks(store, pool, {}) == {}
    assert replaced_tasks(store, pool, {}, new) == {"films": new.label}
    foreign = new.model_copy(update={"owner": "somebody else"})
    assert replaced_tasks(store, pool, {}, foreign) == {}, "only people may say so of another owner's task"
    assert replaced_tasks(store, pool, {old.task.label: foreign.label}, foreign) == {"films": foreign.label}
