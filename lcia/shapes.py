"""What operations are told: the shapes that command line and service check alike."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from components.identity.access import EVERYWHERE, Permission
from components.roles import Role

Number = Annotated[str, Field(min_length=1, max_length=64, description="A version's number, or its digest.")]
Maybe = Annotated[str | None, Field(max_length=64, description="A version's number or digest; default the champion.")]
Item = Annotated[int, Field(ge=1, le=2**31 - 1, description="Number of the task in `status`.")]
Why = Annotated[str, Field(min_length=1, max_length=2000, description="Why; kept in the log.")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Short = Annotated[str, Field(min_length=1, max_length=64)]


class Params(BaseModel):
    """What an operation is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Nothing(Params):
    """No parameters."""


class OfVersion(Params):
    """About a version, or the champion."""

    version: Maybe = None


class OfNumber(Params):
    """About one version."""

    version: Number


class OfImage(OfNumber):
    """An image of a test row that a version changed."""

    task: Name
    image: Name
    """Its digest."""


class Two(Params):
    """Two versions; the second defaults to the champion."""

    before: Number
    after: Maybe = None


class OfTasks(Params):
    """Tasks of one state or owner."""

    state: Short | None = None
    owner: Short | None = None


class OfState(Params):
    """Versions of one state."""

    state: Short | None = None


class OfEntries(Params):
    """Entries of the log, all filters together."""

    kind: Short | None = None
    subject: Name | None = None
    person: Name | None = None
    since: datetime | None = None
    tail: Annotated[int, Field(ge=0, le=10_000)] | None = None


class OfLines(Params):
    """Entries of the log by position."""

    start: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000


class OfProof(Params):
    """What to prove: a promotion, an entry, or growth since a signed head; one of them."""

    version: Number | None = None
    entry: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    since: Annotated[str, Field(max_length=2000, description="Text of a head file.")] | None = None


class Decision(Params):
    """A decision about a version."""

    version: Number
    reason: Why


class Revocation(Decision):
    """A yes to be taken back."""

    person: Name | None = None
    """Whose; default one's own."""


class Approval(Decision):
    """A yes to a version."""

    override: bool = False
    """In spite of the gate."""
    evidence: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Digest of the evidence that was looked at; another one refuses."""


class Answer(Params):
    """An answer about a task."""

    item: Item
    reason: Why


class Retry(Params):
    """A task to be tried again."""

    item: Item
    force: bool = False


class Regroup(Answer):
    """The group that learns a task."""

    group: Short


class Withdrawal(Params):
    """A task to be erased, by name, `name@version` or number."""

    task: Name
    reason: Why


class Replacement(Params):
    """A learnt task and the later one that replaces it, by name, `name@version` or number."""

    old: Name
    new: Name
    reason: Why


class PolicyChange(Params):
    """Keys of the section `policy` that should change, nested as in the settings file."""

    changes: dict[str, Any]
    reason: Why


class PolicyAnswer(Params):
    """An answer to a proposed policy."""

    proposal: Annotated[int, Field(ge=1, le=2**31 - 1)]
    accept: bool
    reason: Why


class BrokenLease(Params):
    """A lease to be freed."""

    lease: Name
    """Its name, as `lcia doctor` shows it."""
    reason: Why
    force: bool = False
    """Although its owner is at work."""


class Grant(Params):
    """A role at a site, given or taken back."""

    person: Annotated[str, Field(min_length=1, max_length=512)]
    """Name or, for somebody who signs in by the identity provider, `issuer|subject`."""
    role: Role
    site: Short = EVERYWHERE
    take_back: bool = False
    reason: Annotated[str, Field(max_length=2000)] = ""
    """Needed where another admin has to accept it."""


class AppointmentAnswer(Params):
    """An answer to a proposed role or account."""

    proposal: Annotated[int, Field(ge=1, le=2**31 - 1)]
    accept: bool
    reason: Why


class NewPerson(Params):
    """Somebody who may sign in."""

    person: Name
    subject: Annotated[str, Field(max_length=512)] | None = None
    """`issuer|subject` of the identity provider; none for a program. Connects somebody who is known."""
    reason: Annotated[str, Field(max_length=2000)] = ""
    """Needed where another admin has to accept it."""


class Gone(Params):
    """Somebody who may not any more."""

    person: Name
    reason: Why


class OfPerson(Params):
    """About somebody, or everybody."""

    person: Name | None = None


class NewToken(Params):
    """A token for a person or program."""

    person: Name
    label: Name
    days: Annotated[float, Field(gt=0, le=366)] = 90
    permissions: tuple[Permission, ...] = ()


class OldToken(Params):
    """A token that ends."""

    token: Short
    reason: Why
