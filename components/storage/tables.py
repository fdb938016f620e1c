"""The tables of the state database: SQLite when embedded, PostgreSQL on a server.

This module describes the columns, and `migrations/` creates the tables; a test keeps the two equal.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.types import TypeDecorator

from components.storage.objects import canonical, parse_json


class Moment(TypeDecorator[datetime]):
    """An aware UTC time kept as ISO text of fixed width, so that it sorts alike in every database."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Aware time to text."""
        return None if value is None else moment_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Text to aware UTC time."""
        return None if value is None else datetime.fromisoformat(value)


class Heartbeat(Moment):
    """A time, or None for anything else, which somebody must have written by hand: it proves nothing."""

    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """Text to aware UTC time, or None."""
        try:
            moment = super().process_result_value(value, dialect)
        except (TypeError, ValueError):
            return None
        return moment if moment is None or moment.tzinfo else None


class Json(TypeDecorator[Any]):
    """A JSON value kept as its canonical text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: object, dialect: Dialect) -> str:  # noqa: ARG002
        """Value to RFC 8785 text."""
        return canonical(value).decode("utf-8")

    def process_result_value(self, value: str | None, dialect: Dialect) -> object:  # noqa: ARG002
        """Text to value."""
        return None if value is None else parse_json(value.encode("utf-8"))


def moment_text(moment: datetime) -> str:
    """`2026-01-31T12:00:00.000000Z`: UTC with microseconds.

    Raises:
        ValueError: the time has no zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone; use the database's clock (Database.now)")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

queue = Table(
    "queue",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("assistant", String(64), nullable=False),
    Column("package", String(64), nullable=False),  # folder object of the raw package
    Column("task", String(64)),  # snapshot digest, once the package was read
    Column("name", String(128), nullable=False),
    Column("version", String(64), nullable=False),
    Column("owner", String(256), nullable=False),
    Column("submitted_by", String(256), nullable=False),
    Column("launched_by", String(256)),
    Column("state", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("reports", Json, nullable=False),  # {name: object digest}
    Column("attempts", Integer, nullable=False),  # how often learning was started
    Column("answers", Json, nullable=False, server_default="{}"),  # what people decided about a held task
    Column("submitted_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False),
    UniqueConstraint("assistant", "package"),
    Index("ix_queue_state", "assistant", "state"),
)

candidates = Table(
    "candidates",
    metadata,
    Column("digest", String(64), primary_key=True),  # the pool manifest
    Column("assistant", String(64), nullable=False),
    Column("number", Integer, nullable=False),  # the version people say: 1, 2, ...
    Column("state", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("task", String(64), nullable=False),
    Column("task_name", String(200), nullable=False),  # name@version, for people
    Column("parent", String(64)),  # version digest, none for the first
    Column("evidence", String(64), nullable=False),
    Column("verdict", String(32), nullable=False),
    Column("attempt", Integer, nullable=False),  # of this task on this parent, from 1
    Column("submitted_by", String(256), nullable=False),
    Column("launched_by", String(256), nullable=False),
    Column("item", Integer, ForeignKey("queue.id")),
    Column("marks", Json, nullable=False),  # what makes this version less than ordinary
    Column("created_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False),
    UniqueConstraint("assistant", "number"),
    Index("ix_candidates_task", "task", "parent"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("candidate", String(64), ForeignKey("candidates.digest"), nullable=False, index=True),
    Column("evidence", String(64), nullable=False),
    Column("verdict", String(16), nullable=False),  # approve or reject
    Column("person", String(256), nullable=False),
    Column("assured", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("revoked_at", Moment),
    Column("override", Boolean, nullable=False, server_default=false()),  # a yes in spite of the gate
    Column("how", String(256)),  # how the person was known; none: an earlier release did not say
    Column("epoch", Integer),  # of the champion at that moment; none: as above
    Column("trials", String(64)),  # digest of the list of records of its ended trials at that moment; none: no trial
)

champion = Table(
    "champion",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("version", String(64), ForeignKey("candidates.digest"), nullable=False),  # decided
    Column("epoch", Integer, nullable=False),  # goes up by one with every decision
    Column("decided_at", Moment, nullable=False),
    Column("served", String(64)),  # what the registry was last seen to serve
)

promotions = Table(
    "promotions",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("version", String(64), ForeignKey("candidates.digest"), nullable=False),
    Column("previous", String(64)),
    Column("kind", String(16), nullable=False),  # promotion or rollback
    Column("by", String(256), nullable=False),
    Column("assured", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", String(64), nullable=False),
    Column("marks", Json, nullable=False),
    Column("at", Moment, nullable=False),
    Column("entry", Integer),  # of the log, which the decision was written with; none where an old log lacks it
)

results = Table(
    "results",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("step", String(64), nullable=False),
    Column("output", String(64), nullable=False),
    Column("lease_epoch", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("owner", String(256)),  # none when released
    Column("epoch", Integer, nullable=False),  # goes up with every change of owner
    Column("heartbeat", Heartbeat, nullable=False),
    Column("ttl", Float, nullable=False),  # seconds
)

log = Table(
    "log",
    metadata,
    Column("position", Integer, primary_key=True, autoincrement=False),  # 0, 1, 2, ... without a gap
    Column("body", LargeBinary, nullable=False),  # RFC 8785 bytes of the entry
    Column("hash", String(64), nullable=False),  # RFC 9162 leaf hash of the body
    Column("root", String(64), nullable=False),  # RFC 9162 tree hash of entries 0..position
    Column("peaks", Text, nullable=False),  # roots of the complete subtrees, left to right, blank-separated
    Column("action", Text),  # as in the body; none where that is no JSON
    Column("subject", Text),
    Index("ix_log_action", "action", "position"),
    Index("ix_log_subject", "subject", "position"),
)

log_actions = Table(
    "log_actions",
    metadata,
    Column("account", String(64), primary_key=True),  # of PostgreSQL
    Column("action", String(64), primary_key=True),  # that it may have entered; `thing.*` for all about a thing
    Column("actors", Text),  # how the actor may be known, blank-separated; none: in any way
)

log_set_aside = Table(
    "log_set_aside",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("entry", Integer, nullable=False),  # of the log that says so
    Column("position", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("hash", Text, nullable=False),  # what stood beside it, whatever that is
    Column("root", Text, nullable=False),
    Column("peaks", Text, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("assistant", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("payload", Json, nullable=False),
    Column("at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text),
    Column("done_at", Moment, index=True),
    Column("packing", Json),  # of a published model: file that MLflow packed around it -> digest
    Column("parked_at", Moment),  # when the registry refused it last; none: it was not asked, or could not be reached
)

people = Table(
    "people",
    metadata,
    Column("name", String(200), primary_key=True),  # as in approvals and the log
    Column("folded", String(200), nullable=False, unique=True),
    Column("subject", String(512), unique=True),  # issuer|subject of the identity provider
    Column("created_at", Moment, nullable=False),
    Column("disabled_at", Moment),
)

grants = Table(
    "grants",
    metadata,
    Column("person", String(200), ForeignKey("people.name"), primary_key=True),
    Column("role", String(32), primary_key=True),
    Column("site", String(64), primary_key=True),  # owner of tasks, or *
    Column("by_group", Boolean, nullable=False, server_default=false()),  # given and taken by the identity provider
)

appointments = Table(
    "appointments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("person", String(200), ForeignKey("people.name"), nullable=False),
    Column("role", String(32)),  # none: it is about the account of the identity provider
    Column("site", String(64)),
    Column("subject", String(512)),  # issuer|subject to be connected; with a role: as it was when it was proposed
    Column("proposed_by", String(200), nullable=False),
    Column("proposed_at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Column("accepted_by", String(200)),
    Column("ended_at", Moment),  # accepted, or refused where nobody accepted
    Column("alone", String(32)),  # why one person was enough: bootstrap or operator; none: two did it
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("secret", String(64), nullable=False),  # sha256
    Column("person", String(200), ForeignKey("people.name"), nullable=False),
    Column("label", String(200), nullable=False),
    Column("permissions", Json, nullable=False),  # none: all of the person's
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("revoked_at", Moment),
    Column("last_used_at", Moment),
    Column("made_by", String(200)),  # none: an earlier release did not say
    Column("how", String(256)),  # how that person was known
    Column("assured", Boolean),  # made by its owner, who was known; none: as above
)

policies = Table(
    "policies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("assistant", String(64), nullable=False, index=True),
    Column("content", Json, nullable=False),
    Column("proposed_by", String(200), nullable=False),
    Column("proposed_at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Column("accepted_by", String(200)),
    Column("ended_at", Moment),  # accepted, or rejected where nobody accepted
)

notices = Table(
    "notices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("assistant", String(64), nullable=False),
    Column("kind", String(32), nullable=False),  # pending, expiring, failed, held, tampering, ...
    Column("about", String(200), nullable=False),  # what makes it this notice and no other
    Column("channel", String(200), nullable=False),
    Column("payload", Json, nullable=False),
    Column("at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Moment, nullable=False),
    Column("error", Text),
    Column("done_at", Moment, index=True),
    UniqueConstraint("assistant", "kind", "about", "channel"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),  # 0, 1, 2, ...: each signed in by the one before
    Column("id", String(64), nullable=False, unique=True),  # sha256 of the raw public key
    Column("record", Json, nullable=False),  # how it came in, as the log has it
    Column("entry", Integer, nullable=False),  # of the log
    Column("at", Moment, nullable=False),
)

statements = Table(
    "statements",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("key", String(64), primary_key=True),  # the present champion's is signed again by a new key
    Column("statement", String(64), nullable=False),  # object: a DSSE envelope
    Column("at", Moment, nullable=False),
)

heads = Table(
    "heads",
    metadata,
    Column("entries", Integer, primary_key=True, autoincrement=False),
    Column("place", String(512), primary_key=True),
    Column("content", Text, nullable=False),  # the signed head, one line
    Column("at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text),
    Column("done_at", Moment, index=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(64), primary_key=True),  # sha256 of what the cookie holds
    Column("person", String(200), ForeignKey("people.name"), nullable=False),
    Column("began_at", Moment, nullable=False),
    Column("ends_at", Moment, nullable=False, index=True),
    Column("ended_at", Moment),  # signed out
)

rounds = Table(
    "rounds",
    metadata,
    Column("name", String(64), primary_key=True),  # what is done again and again
    Column("process", String(200), primary_key=True),  # role and host
    Column("at", Moment, nullable=False),
    Column("ok_at", Moment),
    Column("failing_since", Moment),
    Column("failures", Integer, nullable=False),  # in a row
    Column("error", Text),  # of the last
)

replicas = Table(
    "replicas",
    metadata,
    Column("assistant", String(64), primary_key=True),
    Column("replica", String(80), primary_key=True),  # name of a gateway's process
    Column("engine", String(40), nullable=False),
    Column("version", String(64)),  # digest of what it answers with; none: it has none yet
    Column("ready", Boolean, nullable=False),
    Column("problem", Text, nullable=False),
    Column("traffic", Json, nullable=False),  # {group or none: {requests, errors}}
    Column("latency", Json, nullable=False),
    Column("trial", Json, nullable=False),  # counts of the trial under way, or null
    Column("reported_by", String(200), nullable=False),  # person or program; none other may report under the name
    Column("started_at", Moment, nullable=False),  # first report after a silence
    Column("reported_at", Moment, nullable=False),
    Column("agreed_at", Moment),  # last report in which it was ready with the version decided at that moment
)

trials = Table(
    "trials",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("assistant", String(64), nullable=False, index=True),
    Column("candidate", String(64), ForeignKey("candidates.digest"), nullable=False, index=True),
    Column("evidence", String(64), nullable=False),  # of the candidate
    Column("champion", String(64), nullable=False),  # that it is compared with
    Column("epoch", Integer, nullable=False),  # of that champion
    Column("kind", String(16), nullable=False),  # shadow or canary
    Column("share", Float, nullable=False),
    Column("state", String(16), nullable=False),  # waiting, under_way or ended
    Column("rules", Json, nullable=False),  # settings of the rules at its start
    Column("tests", Json, nullable=False),  # {rule: state of its sequential test}
    Column("asked_by", String(200), nullable=False),
    Column("asked_at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Column("approved_by", String(200)),
    Column("approval", Text),  # reason of the approval
    Column("started_at", Moment),
    Column("entry", Integer),  # of the log, that started it
    Column("ended_at", Moment),
    Column("ended_by", String(200)),
    Column("cause", String(32)),  # rule that ended it, or person, time, candidate, champion
    Column("why", Text),
    Column("record", String(64)),  # object; none: it never was under way
    Column("answers", String(64)),  # object with changed answers
    Column("answers_until", Moment),
    Column("statement", String(64)),  # object: a DSSE envelope
    Column("signed_by", String(64)),  # id of the key
)

trial_counts = Table(
    "trial_counts",
    metadata,
    Column("trial", Integer, ForeignKey("trials.id"), primary_key=True),
    Column("replica", String(80), primary_key=True),
    Column("counts", Json, nullable=False),  # cumulative, as last reported
    Column("at", Moment, nullable=False),
)

trial_answers = Table(
    "trial_answers",
    metadata,
    Column("trial", Integer, ForeignKey("trials.id"), primary_key=True),
    Column("id", String(80), primary_key=True),  # of the answer
    Column("champion", Text, nullable=False),  # texts with personal data masked
    Column("candidate", Text, nullable=False),
    Column("at", Moment, nullable=False),
)

wording_proposals = Table(
    "wording_proposals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("assistant", String(64), nullable=False, index=True),
    Column("task", String(64), nullable=False, index=True),  # snapshot of the task that it would be a wording of
    Column("label", String(128), nullable=False),  # name@version, for people
    Column("text", Text, nullable=False),
    Column("source", String(16), nullable=False),  # model, or request: somebody asked so and no task answered
    Column("times", Integer, nullable=False),  # how often it came
    Column("state", String(16), nullable=False),  # open, accepted, declined
    Column("made_by", String(256), nullable=False),
    Column("at", Moment, nullable=False),  # when it came last
    Column("decided_by", String(256)),
    Column("decided_at", Moment),
    Column("item", Integer, ForeignKey("queue.id")),  # the change that it became part of
)
