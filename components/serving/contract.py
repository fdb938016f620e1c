"""Contract of an answer: what the gate's evaluation fixed for a task, and everything that answers keeps to.

Prompt and answer tokens are those of `components.model.prompts`; this module says which adapter reads them, how the
answer is decoded and where it ends. `lcia ask`, the MLflow model, the gateway on every engine and the lines printed for
vLLM go by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from components.errors import LciaError
from components.grouping.route import Route
from components.model.choosing import likeliest
from components.model.prompts import Rendered
from components.serving.bundle import Bundle
from components.tasks.task_file import Decoding

FREE = Decoding(max_new_tokens=64)
"""Decoding of requests that resemble no task."""


class NoSuchTask(LciaError):
    """A version has not learnt a task of this name."""


@dataclass(frozen=True)
class Contract:
    """Rules of one answer. `group`, `adapter` and `task` are None if the base model answers alone."""

    group: str | None
    adapter: str | None
    """Digest of the group's adapter."""
    task: str | None
    """Name of the nearest task, whose decoding this is."""
    decoding: Decoding
    choices: tuple[str, ...] = ()
    """Answers to choose from by likelihood; empty: the answer is generated."""
    question: str = ""
    """Answer that asks the caller back; empty: the request is answered."""

    def choose(self, likelihoods: Sequence[float], answers: Sequence[tuple[int, ...]]) -> str:
        """The likeliest choice; `answers` are the choices' token ids, `likelihoods` theirs, end token included."""
        rows = [Rendered((), answer) for answer in answers]
        by_token = self.decoding.length_normalisation == "tokens"
        return self.choices[likeliest(likelihoods, rows, by_token=by_token, alone=0.0)[0]]


BASE = Contract(None, None, None, FREE)
"""Contract of the base model alone."""


def contract_of(bundle: Bundle | None, route: Route, choices: Sequence[str] = ()) -> Contract:
    """Contract of a request that was routed; `choices` are the request's own, for tasks whose rows have their own."""
    if bundle is not None and route.unsure_between is not None:
        return Contract(None, None, None, FREE, question=_question(bundle, route.unsure_between))
    if bundle is None or route.group is None or route.nearest_task is None:
        return BASE
    return _of(bundle, route.group, route.nearest_task, choices)


def contract_of_task(bundle: Bundle, name: str, choices: Sequence[str] = ()) -> Contract:
    """Contract of a task that the caller names; no router is involved.

    `name@version` is that very task. A name alone is its newest version that no other task replaces; in versions made
    by earlier releases it is the first one learnt.

    Raises:
        NoSuchTask: the version has not learnt it.
    """
    groups = bundle.pool.groups_by_name()
    entry = _entry_of(bundle, name)
    if entry is None:
        names = ", ".join(sorted(groups)) or "none yet"
        raise NoSuchTask(f"version {bundle.version[:12]} has not learnt a task {name!r}; it knows: {names}")
    return _of(bundle, groups[entry], entry, choices)


def _question(bundle: Bundle, between: tuple[str, str]) -> str:
    """Words that ask which of two tasks is meant; an answer that names one settles it."""
    descriptions = {entry.name: bundle.tasks[entry.task].description for entry in bundle.pool.tasks()}
    first, second = (f"{name} ({descriptions[name]})" for name in between)
    return f"Which do you mean: {first} or {second}? Please answer with one of the two names."


def _entry_of(bundle: Bundle, name: str) -> str | None:
    """Name in the pool of the task that a caller means."""
    tasks = {entry.name: bundle.tasks[entry.task] for entry in bundle.pool.tasks()}
    exact = next((own for own, task in tasks.items() if task.label == name), None)
    precedence = bundle.pool.precedence()
    if exact is not None or precedence is None:
        return exact or (name if name in tasks else None)
    return next((own for own in reversed(precedence) if tasks[own].name == name), None)


def _of(bundle: Bundle, group: str, name: str, choices: Sequence[str]) -> Contract:
    members = bundle.pool.group(group)
    task = bundle.tasks[next(entry.task for entry in members.tasks if entry.name == name)]
    options = tuple(choices or task.choices or ()) if task.decoding.mode == "choose" else ()
    return Contract(group, members.adapter, name, task.decoding, options)
