"""Two versions side by side: tasks, groups, adapters, scores with paired intervals, flips, settings."""

from collections.abc import Iterator, Mapping
from typing import Any

from components.errors import LciaError
from components.evaluation.scored import scored_rows
from components.evaluation.statistics import compare
from components.grouping.pool import Pool
from components.promotion.candidates import Candidate
from components.settings.loading import leaves
from components.settings.removed import without_defaults_removed
from lcia.instance import Instance
from lcia.operations.figures import mean_of_rows

ONE_SIDED = 0.025
"""Each bound's level: the interval of a gain is two-sided at 95 %."""


class NothingToCompare(LciaError):
    """There is no champion to compare with."""


def diff(instance: Instance, before: str, after: str | None = None) -> dict[str, Any]:
    """Differences from version `before` to `after` (default: the champion), and the scores of each common task.

    Raises:
        NothingToCompare: `after` was not named and there is no champion.
        CandidateUnknown: no such version.
    """
    old, new = instance.version(before), instance.version(after)
    if old is None or new is None:
        raise NothingToCompare(f"there is no champion to compare version {before} with; name two: `lcia diff 1 2`")
    pools = instance.pool(old.digest), instance.pool(new.digest)
    evaluations = [instance.store.get_json(str(instance.evidence(version)["evaluation"])) for version in (old, new)]
    names = [{entry.task: entry.name for entry in pool.tasks()} for pool in pools]
    same = evaluations[0]["numerics_digest"] == evaluations[1]["numerics_digest"]
    common = [task for task in names[0] if task in names[1]]
    return {
        "before": _heading(old),
        "after": _heading(new),
        "tasks": {
            "only_before": [name for task, name in names[0].items() if task not in names[1]],
            "only_after": [name for task, name in names[1].items() if task not in names[0]],
        },
        "groups": _groups(*pools),
        "wordings": list(_wordings(*pools)),
        "comparable": same,
        "scores": [
            _scores(instance, evaluations[0], evaluations[1], names[0][task], names[1][task]) for task in common
        ],
        "settings": list(_settings(instance, *pools)),
        "marks": {
            "only_before": sorted({*old.marks} - {*new.marks}),
            "only_after": sorted({*new.marks} - {*old.marks}),
        },
    }


def _heading(version: Candidate) -> dict[str, Any]:
    return {"version": version.number, "digest": version.digest, "state": version.state, "task": version.task_name}


def _groups(old: Pool, new: Pool) -> list[dict[str, Any]]:
    """Each group of either version; `adapter` is same, changed, only_before or only_after."""
    before, after = ({group.id: group for group in pool.groups} for pool in (old, new))
    groups = []
    for name in dict.fromkeys([*before, *after]):
        old_group, new_group = before.get(name), after.get(name)
        if old_group and new_group:
            adapter = "same" if old_group.adapter == new_group.adapter else "changed"
        else:
            adapter = "only_before" if old_group else "only_after"
        groups.append(
            {
                "id": name,
                "adapter": adapter,
                "tasks_before": [task.name for task in old_group.tasks] if old_group else [],
                "tasks_after": [task.name for task in new_group.tasks] if new_group else [],
            }
        )
    return groups


def _wordings(old: Pool, new: Pool) -> Iterator[dict[str, Any]]:
    """Tasks of both versions that are asked for in other ways than before."""
    before = {entry.task: entry for entry in old.tasks()}
    for entry in new.tasks():
        texts = before[entry.task].texts if entry.task in before else entry.texts
        plus, minus = ([t for t in a if t not in b] for a, b in ((entry.texts, texts), (texts, entry.texts)))
        if plus or minus:
            yield {"task": entry.name, "added": plus, "removed": minus}


def _scores(
    instance: Instance, old: Mapping[str, Any], new: Mapping[str, Any], name_before: str, name: str
) -> dict[str, Any]:
    """One common task: scores, gain with its 95 % interval over paired rows, flips; nulls where not measurable."""
    digests = old["predictions"].get(name_before), new["predictions"].get(name)
    scores = [mean_of_rows(instance.store, digest) if digest else None for digest in digests]
    fields: dict[str, Any] = {"task": name, "before": scores[0], "after": scores[1]}
    if None in scores:  # no rows are kept, or they were erased
        empty = {"gain": None, "interval": None, "rows": 0, "lost": 0, "won": 0, "reworded": 0, "same_object": False}
        return {**fields, **empty}
    old_rows, new_rows = (scored_rows(instance.store, digest) for digest in digests)
    pairs = list(zip(old_rows, new_rows, strict=True))
    is_same = digests[0] == digests[1]
    loss = compare([a["score"] for a in old_rows], [b["score"] for b in new_rows], ONE_SIDED)
    return {
        **fields,
        "gain": 0.0 - loss.drop,
        "interval": [0.0, 0.0] if is_same else [0.0 - loss.high, 0.0 - loss.low],
        "rows": len(pairs),
        "lost": sum(b["score"] < a["score"] for a, b in pairs),
        "won": sum(b["score"] > a["score"] for a, b in pairs),
        "reworded": sum(b["score"] == a["score"] and b["text"] != a["text"] for a, b in pairs),
        "same_object": is_same,
    }


def _settings(instance: Instance, old: Pool, new: Pool) -> Iterator[dict[str, Any]]:
    """Settings that the versions depend on and that differ, by dotted name."""
    before, after = (instance.store.get_json(pool.config) if pool.config else {} for pool in (old, new))
    old_values, new_values = (dict(leaves(without_defaults_removed(content))) for content in (before, after))
    for key in sorted({*old_values, *new_values}):
        if old_values.get(key) != new_values.get(key):
            yield {"key": key, "before": old_values.get(key), "after": new_values.get(key)}
