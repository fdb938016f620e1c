"""Parameters of the operations: the shapes that command line and service check alike."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from components.errors import LciaError
from components.identity.access import EVERYWHERE, Permission
from components.roles import Role
from components.settings import Fallback

Number = Annotated[str, Field(min_length=1, max_length=64, description="A version's number, or its digest.")]
Maybe = Annotated[str | None, Field(max_length=64, description="A version's number or digest; default the champion.")]
Item = Annotated[int, Field(ge=1, le=2**31 - 1, description="Number of the task in `status`.")]
Why = Annotated[str, Field(min_length=1, max_length=2000, description="Why; kept in the log.")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Short = Annotated[str, Field(min_length=1, max_length=64)]
Wording = Annotated[str, Field(min_length=1, max_length=1000, description="A way to ask for a task.")]


class FilterUnknown(LciaError):
    """A filter that can never match."""


class Params(BaseModel):
    """Parameters of an operation."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # each process uses few of them


class NoParams(Params):
    """No parameters."""


class VersionParams(Params):
    """About a version, or the champion."""

    version: Maybe = None


class RouteRequest(Params):
    """A request as people type it."""

    instruction: Annotated[str, Field(min_length=1, max_length=4000)]
    input: Annotated[str | None, Field(max_length=100_000, description="Text that the instruction is about.")] = None


class RouteParams(VersionParams):
    """Requests to route by a version."""

    requests: Annotated[tuple[RouteRequest, ...], Field(min_length=1, max_length=500)]
    fallback: Annotated[Fallback | None, Field(description="Other than the version's own, for these requests.")] = None


class FlipsParams(Params):
    """About one version."""

    version: Number


class ImageParams(FlipsParams):
    """An image of a test row that a version changed."""

    task: Name
    image: Name
    """Its digest."""


class DiffParams(Params):
    """Two versions; the second defaults to the champion."""

    before: Number
    after: Maybe = None


class TasksParams(Params):
    """Tasks of one state or owner."""

    state: Short | None = None
    owner: Short | None = None


class CandidatesParams(Params):
    """Versions of one state."""

    state: Short | None = None


class EntriesParams(Params):
    """Entries of the log, all filters together."""

    kind: Short | None = None
    subject: Name | None = None
    person: Name | None = None
    since: datetime | None = None
    tail: Annotated[int, Field(ge=0, le=10_000)] | None = None


class LinesParams(Params):
    """Entries of the log by position."""

    start: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000


class ProofParams(Params):
    """One thing to prove: a promotion, an entry, or growth since a signed head."""

    version: Number | None = None
    entry: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    since: Annotated[str, Field(max_length=2000, description="Text of a head file.")] | None = None


class DecisionParams(Params):
    """A decision about a version."""

    version: Number
    reason: Why


class RevokeParams(DecisionParams):
    """An approval to be taken back."""

    person: Name | None = None
    """Its giver; default oneself."""


class ApproveParams(DecisionParams):
    """An approval of a version."""

    override: bool = False
    """Against the gate."""
    evidence: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Digest of the evidence that the approver read; another one refuses."""
    trials: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """That of the records of its ended trials, as `show` has it; another one refuses."""


class AnswerParams(Params):
    """An answer about a task."""

    item: Item
    reason: Why


class ItemParams(Params):
    """A task of the queue."""

    item: Item


class PriorityParams(AnswerParams):
    """A task's priority: 0 is the usual one, higher comes first."""

    priority: Annotated[int, Field(ge=-10, le=10)]


class RetryParams(Params):
    """A task to be tried again."""

    item: Item
    force: bool = False


class RegroupParams(AnswerParams):
    """The group that learns a task."""

    group: Short


class WordingsParams(Params):
    """A learnt task by name or `name@version`; none: all."""

    task: Name | None = None


class ChangeWordingsParams(Params):
    """Wordings that a learnt task gains and loses."""

    task: Name
    add: Annotated[tuple[Wording, ...], Field(max_length=200)] = ()
    remove: Annotated[tuple[Wording, ...], Field(max_length=200)] = ()


class RevertParams(Params):
    """A learnt task to take out."""

    task: Name
    reason: Why


class ProposeWordingsParams(Params):
    """Wordings that a model proposes for a learnt task."""

    task: Name
    texts: Annotated[tuple[Wording, ...], Field(min_length=1, max_length=200)]


class AnswerWordingsParams(Params):
    """An answer to proposed wordings."""

    numbers: Annotated[tuple[Annotated[int, Field(ge=1, le=2**31 - 1)], ...], Field(min_length=1, max_length=200)]
    accept: bool


class WithdrawParams(Params):
    """A task to be erased, by name, `name@version` or number."""

    task: Name
    reason: Why


class SupersedeParams(Params):
    """A learnt task and the later one that replaces it, by name, `name@version` or number."""

    old: Name
    new: Name
    reason: Why


class ProposePolicyParams(Params):
    """Keys of the section `policy` that should change, nested as in the settings file."""

    changes: dict[str, Any]
    reason: Why


class AnswerPolicyParams(Params):
    """An answer to a proposed policy."""

    proposal: Annotated[int, Field(ge=1, le=2**31 - 1)]
    accept: bool
    reason: Why


class BreakLeaseParams(Params):
    """A lease to be freed."""

    lease: Name
    """Its name, as `lcia doctor` shows it."""
    reason: Why
    force: bool = False
    """Although its owner is at work."""


class GrantParams(Params):
    """A role at a site, given or taken back."""

    person: Annotated[str, Field(min_length=1, max_length=512)]
    """Name or, for somebody who signs in by the identity provider, `issuer|subject`."""
    role: Role
    site: Short = EVERYWHERE
    take_back: bool = False
    reason: Annotated[str, Field(max_length=2000)] = ""
    """Needed where another admin has to accept it."""


class AnswerGrantParams(Params):
    """An answer to a proposed role or account."""

    proposal: Annotated[int, Field(ge=1, le=2**31 - 1)]
    accept: bool
    reason: Why


class AddPersonParams(Params):
    """Somebody who may sign in."""

    person: Name
    subject: Annotated[str, Field(max_length=512)] | None = None
    """`issuer|subject` of the identity provider; none for a program. Connects somebody who is known."""
    reason: Annotated[str, Field(max_length=2000)] = ""
    """Needed where another admin has to accept it."""


class DisablePersonParams(Params):
    """Somebody who may not any more."""

    person: Name
    reason: Why


class PersonParams(Params):
    """About somebody, or everybody."""

    person: Name | None = None


class CreateTokenParams(Params):
    """A token for a person or program."""

    person: Name
    label: Name
    days: Annotated[float, Field(gt=0, le=366)] = 90
    permissions: tuple[Permission, ...] = ()


class RevokeTokenParams(Params):
    """A token that ends."""

    token: Short
    reason: Why
