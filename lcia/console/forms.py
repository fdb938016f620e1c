"""Forms: from their fields to an operation's parameters, and from its answer to a sentence."""

from collections.abc import Mapping
from typing import Any, get_origin

from components.errors import LciaError
from components.storage.objects import Json
from components.tasks.yaml_lines import parse_yaml
from lcia.console.labels import Say, _
from lcia.operations.params import Params
from lcia.operations.table import OPERATIONS


class OperationUnknown(LciaError):
    """An operation that no form can do."""


class ChangesUnreadable(LciaError):
    """A text that should be YAML and is not."""


def parameters(name: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """The fields that the operation takes; empty ones are left out, a ticked box is true.

    Raises:
        OperationUnknown: no operation of that name changes anything.
        ChangesUnreadable: a field that takes keys and values holds something else.
    """
    operation = OPERATIONS.get(name)
    if operation is None or not operation.changes:
        raise OperationUnknown(f"{name!r} is nothing that can be done here")
    return {key: _value(operation.params, key, value) for key, value in fields.items() if value != ""}


def _value(shape: type[Params], key: str, value: str) -> Any:  # noqa: ANN401 - what the shape's field takes
    field = shape.model_fields.get(key)
    kind = field.annotation if field is not None else str
    if kind is bool:
        return value in ("on", "true", "1")
    if get_origin(kind) is dict:
        return _keys(value)
    if get_origin(kind) is tuple:  # one a line
        return [line.strip() for line in value.splitlines() if line.strip()]
    return value


def _keys(text: str) -> dict[str, Any]:
    """Keys and values, read as strictly as a task's: aliases of YAML grow without bound."""
    document, problems = parse_yaml(text, "the text")
    if document is None:
        raise ChangesUnreadable(f"the text can't be read as YAML: {problems[0]}")
    return document.values


DONE: Mapping[str, str] = {
    "reject": _("Version %(version)s is rejected."),
    "revoke": _("The approval of version %(version)s by %(person)s is revoked."),
    "rollback": _("Version %(number)s is the champion again."),
    "retry": _("%(name)s is in the queue again."),
    "release": _("%(name)s is in the queue again."),
    "regroup": _("%(name)s is in the queue again."),
    "cancel": _("%(name)s is taken out of the queue."),
    "withdraw": _("The rows are erased."),
    "start-trial": _("Trial %(id)s has begun."),
    "approve-trial": _("Trial %(id)s has begun."),
    "stop-trial": _("Trial %(id)s is stopped; every caller gets the champion."),
    "revert": _("It is in the queue; a worker makes a candidate without the task."),
    "change-wordings": _("The change is in the queue; a worker makes a candidate of it."),
    "answer-wordings": _("The proposals are answered; a worker makes candidates of what was accepted."),
    "sync": _("MLflow was compared with the decisions."),
    "propose-policy": _("The change is proposed; another admin has to accept it."),
    "answer-policy": _("The proposal is answered."),
    "add-person": _("%(name)s may sign in, and has no role yet."),
    "grant": _("The roles of %(name)s are changed."),
    "answer-grant": _("The proposal is answered."),
    "disable-person": _("%(name)s is shut out."),
    "revoke-token": _("The token is revoked."),
}
"""Operation -> the sentence that reports it; an approval says more."""


def sentence(say: Say, name: str, answer: Json) -> str:
    """A sentence for the person who did it."""
    if name not in DONE and name != "approve":
        return say(_("Done."))
    sentences = [_report(say, name, answer)]
    if answer.get("still_there"):
        remains = say(_("The task is withdrawn, but data that should be erased is still in %(count)s places."))
        sentences = [remains % {"count": len(answer["still_there"])}]
    if answer.get("served") is False:
        sentences.append(say(_("MLflow does not serve the champion yet.")))
    if answer.get("registry_untold"):
        backlog = say(_("Changes that have not reached MLflow yet: %(count)s; the overview says why."))
        sentences.append(backlog % {"count": len(answer["registry_untold"])})
    return " ".join(sentences)


def _report(say: Say, name: str, answer: Mapping[str, Any]) -> str:
    if answer.get("proposal"):
        return say(_("It is proposed for %(name)s; another admin has to accept it.")) % answer
    if name == "add-person" and answer["known"]:
        return say(_("%(name)s is already known.")) % answer
    if name == "start-trial" and answer["state"] == "waiting":
        return say(_("Trial %(id)s waits for approval by somebody else.")) % answer
    if name != "approve":
        return say(DONE[name]) % answer
    if answer["epoch"] is None:
        return say(_("Your approval of version %(version)s counts; more people have to approve.")) % answer
    return say(_("Version %(version)s is the champion now.")) % answer
