"""The operations of an assistant, in one table for the command line and the service.

An operation names its parameters, the function that does it, and the sites it is about; who may ask for it is
`components.identity.access.TABLE`.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from components.audit.log import Actor
from components.errors import LciaError
from components.identity import appointments, tokens
from components.identity.access import EVERYWHERE, Permission
from components.promotion import candidates, trial_rows
from components.retention import withdrawal
from components.storage.objects import Json
from components.tasks import proposals, queue
from lcia.instance import Instance
from lcia.operations import (
    audit,
    decisions,
    diff,
    figures,
    flips,
    leases,
    people,
    policy,
    registry,
    retention,
    reversals,
    routing,
    serving,
    status,
    tasks,
    trials,
    turns,
    versions,
    wordings,
)
from lcia.operations.params import (
    AddPersonParams,
    AnswerGrantParams,
    AnswerParams,
    AnswerPolicyParams,
    AnswerWordingsParams,
    ApproveParams,
    BreakLeaseParams,
    CandidatesParams,
    ChangeWordingsParams,
    CreateTokenParams,
    DecisionParams,
    DiffParams,
    DisablePersonParams,
    EntriesParams,
    FlipsParams,
    GrantParams,
    ImageParams,
    ItemParams,
    LinesParams,
    NoParams,
    Params,
    PersonParams,
    PriorityParams,
    ProofParams,
    ProposePolicyParams,
    ProposeWordingsParams,
    RegroupParams,
    RetryParams,
    RevertParams,
    RevokeParams,
    RevokeTokenParams,
    RouteParams,
    SupersedeParams,
    TasksParams,
    VersionParams,
    WithdrawParams,
    WordingsParams,
)
from lcia.operations.serving_params import ReportParams, ServingParams
from lcia.operations.trial_params import StartTrialParams, TrialDecisionParams, TrialParams, TrialsParams


class ParametersRefused(LciaError):
    """Parameters that do not fit an operation."""


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked."""

    name: str
    permission: Permission
    changes: bool
    """False: it only looks."""
    params: type[Params]
    function: Callable[..., Json]
    """Takes the instance, the fields of `params` by name and, where it names one, the actor."""
    sites: Callable[[Instance, Any], Collection[str] | None] = lambda _place, _params: None
    """Owners of the tasks that it is about, `*` for everybody's; None where it is about no site in particular."""
    everywhere: bool = False
    """The permission is needed at all of the sites; else one of them is enough."""
    about: Callable[[Instance, Any], str | None] | None = None
    """Somebody who may do it, being the person it is about."""
    has_texts: bool = False
    """True if its parameters hold people's texts, which no address and no log of addresses may show."""

    def check(self, params: Mapping[str, Any]) -> Params:
        """The parameters in their shape.

        Raises:
            ParametersRefused: they do not fit it.
        """
        try:
            return self.params.model_validate(dict(params))
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise ParametersRefused("; ".join(faults)) from error

    def run(self, instance: Instance, actor: Actor, params: Params) -> Json:
        """Do it; the answer is a JSON value."""
        fields = {name: getattr(params, name) for name in self.params.model_fields}
        if "actor" in inspect.signature(self.function).parameters:
            fields["actor"] = actor
        return self.function(instance, **fields)

    @property
    def method(self) -> Literal["GET", "POST"]:
        """Its method over HTTP: POST if it changes something or takes texts."""
        return "POST" if self.changes or self.has_texts else "GET"

    @property
    def summary(self) -> str:
        """The first line of what it does."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


def _of_version(instance: Instance, params: Any) -> frozenset[str]:  # noqa: ANN401 - any params with a version
    """All whose tasks change if it becomes the champion."""
    with instance.db.read() as connection:
        return candidates.sites(connection, candidates.get(connection, instance.assistant, params.version))


def _of_trial(instance: Instance, params: Any) -> frozenset[str]:  # noqa: ANN401 - any params with a trial
    """All whose tasks change if the version that is tried becomes the champion."""
    with instance.db.read() as connection:
        trial = trial_rows.get(connection, instance.assistant, params.trial)
        return candidates.sites(connection, candidates.get(connection, instance.assistant, trial.candidate))


def _of_item(instance: Instance, params: Any) -> list[str]:  # noqa: ANN401 - any params with an item
    with instance.db.read() as connection:
        return [queue.item(connection, params.item).owner]


def _of_replaced(instance: Instance, params: Any) -> list[str]:  # noqa: ANN401 - any params with old and new
    with instance.db.read() as connection:
        return [withdrawal.find(connection, instance.assistant, params.old).owner]


def _of_task(instance: Instance, params: Any) -> list[str]:  # noqa: ANN401 - any params with a task
    with instance.db.read() as connection:
        return [withdrawal.find(connection, instance.assistant, params.task).owner]


def _of_wordings(instance: Instance, params: Any) -> list[str]:  # noqa: ANN401 - any params with a learnt task
    return [EVERYWHERE] if params.task is None else [wordings.need_task(instance, params.task).owner]


def _of_proposals(instance: Instance, params: AnswerWordingsParams) -> list[str]:
    with instance.db.read() as connection:
        tasks = {each.task for each in proposals.find(connection, instance.assistant, params.numbers)}
    owners = {each.entry.task: each.owner for each in wordings.learnt_tasks(instance)}
    return sorted({owners.get(task, EVERYWHERE) for task in tasks})


def _of_all(_: Instance, __: Any) -> list[str]:  # noqa: ANN401 - any params
    """Tasks of everybody."""
    return [EVERYWHERE]


def _of_role(_: Instance, params: GrantParams) -> list[str]:
    return [params.site]


def _of_answered(instance: Instance, params: AnswerGrantParams) -> list[str]:
    with instance.db.read() as connection:
        return [appointments.get(connection, params.proposal).site or EVERYWHERE]


def _whose(_: Instance, params: Any) -> str | None:  # noqa: ANN401 - any params with a person
    name: str | None = params.person
    return name


def _whose_token(instance: Instance, params: RevokeTokenParams) -> str | None:
    with instance.db.read() as connection:
        return next((one.person for one in tokens.every(connection) if one.id == params.token), None)


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("status", "look", False, NoParams, status.status),
        Operation("tasks", "look", False, TasksParams, tasks.tasks),
        Operation("candidates", "look", False, CandidatesParams, versions.versions),
        Operation("lineage", "look", False, VersionParams, versions.lineage),
        Operation("matrix", "look", False, VersionParams, figures.matrix),
        Operation("show", "look", False, VersionParams, versions.show),
        Operation("diff", "look", False, DiffParams, diff.diff),
        Operation("retention", "look", False, NoParams, retention.look),
        Operation("route", "look", False, RouteParams, routing.route, has_texts=True),
        Operation("flips", "read_rows", False, FlipsParams, flips.flips),
        Operation("image", "read_rows", False, ImageParams, flips.png),
        Operation("entries", "audit", False, EntriesParams, audit.entries),
        Operation("verify", "audit", False, NoParams, audit.verify_live),
        Operation("head", "audit", False, NoParams, audit.head),
        Operation("lines", "audit", False, LinesParams, audit.lines),
        Operation("prove", "audit", False, ProofParams, audit.prove),
        Operation("statement", "look", False, VersionParams, audit.signed_statement),
        Operation("keys", "look", False, NoParams, audit.keys),
        Operation("policy", "look", False, NoParams, policy.in_force),
        Operation("replicas", "look", False, NoParams, serving.fleet),
        Operation("serving", "serve", False, ServingParams, serving.serving),
        Operation("report", "serve", True, ReportParams, serving.report),
        Operation("people", "administer", False, NoParams, people.everybody),
        Operation("tokens", "administer", False, PersonParams, people.token_list, about=_whose),
        Operation("approve", "decide", True, ApproveParams, decisions.approve, _of_version),
        Operation("reject", "decide", True, DecisionParams, decisions.reject, _of_version),
        Operation("revoke", "revoke", True, RevokeParams, decisions.revoke, _of_version),
        Operation("rollback", "roll_back", True, DecisionParams, decisions.rollback, _of_version, everywhere=True),
        Operation("trials", "look", False, TrialsParams, trials.trials),
        Operation("trial-answers", "read_rows", False, TrialParams, trials.answers, _of_trial, everywhere=True),
        Operation("start-trial", "operate", True, StartTrialParams, trials.start, _of_version),
        Operation("approve-trial", "decide", True, TrialDecisionParams, trials.approve, _of_trial, everywhere=True),
        # stopping only gives callers the champion back, so whoever runs things may do it; approvers can also reject
        Operation("stop-trial", "operate", True, TrialDecisionParams, trials.stop, _of_trial),
        Operation("supersede", "operate", True, SupersedeParams, tasks.supersede, _of_replaced),
        Operation("retry", "operate", True, RetryParams, tasks.retry, _of_item),
        Operation("release", "operate", True, AnswerParams, tasks.release, _of_item),
        Operation("regroup", "operate", True, RegroupParams, tasks.regroup, _of_item),
        Operation("prioritise", "operate", True, PriorityParams, turns.prioritise, _of_item),
        Operation("pause", "operate", True, AnswerParams, turns.pause, _of_item),
        Operation("resume", "operate", True, ItemParams, turns.resume, _of_item),
        Operation("cancel", "operate", True, AnswerParams, tasks.cancel, _of_item),
        Operation("wordings", "submit", False, WordingsParams, wordings.wordings, _of_wordings),
        Operation("change-wordings", "submit", True, ChangeWordingsParams, wordings.change, _of_wordings),
        Operation("propose-wordings", "submit", True, ProposeWordingsParams, wordings.propose, _of_wordings),
        Operation(
            "answer-wordings", "submit", True, AnswerWordingsParams, wordings.answer, _of_proposals, everywhere=True
        ),
        Operation("revert", "submit", True, RevertParams, reversals.revert, _of_wordings),
        Operation("break-lease", "operate", True, BreakLeaseParams, leases.break_lease, _of_all),
        Operation("sync", "operate", True, NoParams, registry.sync, _of_all),
        Operation("sweep", "operate", True, NoParams, retention.clean, _of_all),
        Operation("withdraw", "withdraw", True, WithdrawParams, retention.withdraw, _of_task),
        Operation("propose-policy", "administer", True, ProposePolicyParams, policy.propose, _of_all),
        Operation("answer-policy", "administer", True, AnswerPolicyParams, policy.answer, _of_all),
        Operation("add-person", "administer", True, AddPersonParams, people.add, _of_all),
        Operation("grant", "administer", True, GrantParams, people.grant, _of_role),
        Operation("answer-grant", "administer", True, AnswerGrantParams, people.answer_grant, _of_answered),
        Operation("disable-person", "administer", True, DisablePersonParams, people.disable, _of_all),
        Operation("create-token", "administer", True, CreateTokenParams, people.create_token, _of_all, about=_whose),
        Operation(
            "revoke-token", "administer", True, RevokeTokenParams, people.revoke_token, _of_all, about=_whose_token
        ),
    )
}
"""By name; `submit` and `part` are apart, for they carry bytes."""
