"""Serving: the service's side of the gateways, which fetch decisions and versions from it and report what they do."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from components.audit.log import Actor
from components.audit.statement import StatementRefused
from components.errors import LciaError
from components.identity import tokens
from components.promotion import candidates, champion, replicas, statements, trials
from components.promotion.candidates import Candidate
from components.promotion.champion import Champion
from components.promotion.replicas import Fleet, Replica
from components.serving import bundle
from components.storage.objects import Json, ObjectStore
from lcia.instance import Instance
from lcia.operations import wordings
from lcia.operations.serving_params import LatencyParams, TrafficParams, TrialReportParams, UnroutedParams

REMEMBERED = 64
"""Versions whose objects are kept listed; the list of a version never changes."""


class PartUnknown(LciaError):
    """An object that is no part of the version."""


def serving(instance: Instance, version: str | None = None) -> dict[str, Any]:
    """Everything a gateway follows: the champion with its signed statement, a trial, and the tokens that may ask.

    `version` is one that somebody who may try versions asks for.

    Raises:
        CandidateUnknown, NotAskable: there is no such version, or no gateway may answer with it.
    """
    with instance.db.read() as connection:
        now = champion.current(connection, instance.assistant)
        decided = candidates.get(connection, instance.assistant, now.version) if now else None
        asked = (
            replicas.need_askable(connection, instance.store, instance.assistant, version)
            if version is not None
            else None
        )
        checks = tokens.checks(connection, ("answer", "try"))
        trial = trials.under_way(connection, instance.store, instance.assistant)
    return {
        "assistant": instance.assistant,
        "champion": {**_decision(now, decided.number), **_statement(instance, decided)} if now and decided else None,
        "version": {"number": asked.number, "digest": asked.digest} if asked else None,
        "trial": trial,
        "tokens": [
            {
                "id": one.token.id,
                "check": one.check,
                "person": one.token.person,
                "expires_at": one.token.expires_at.isoformat(),
                "permissions": list(one.permissions),
            }
            for one in checks
            if "answer" in one.permissions
        ],
    }


def part(instance: Instance, version: str, digest: str) -> bytes:
    """One object of a version's bundle, checked against its digest.

    Raises:
        CandidateUnknown, NotAskable: see `serving`.
        PartUnknown: the object is no part of the version.
        ObjectMissing, ObjectCorrupt: it is gone or was altered.
    """
    with instance.db.read() as connection:
        candidate = replicas.need_askable(connection, instance.store, instance.assistant, version)
    if digest not in _digests(instance.store, candidate.digest):
        raise PartUnknown(
            f"{digest} is no part of version {candidate.number}; its manifest {candidate.digest} and its folders name "
            "every part"
        )
    return instance.store.get(digest)


def report(
    instance: Instance,
    actor: Actor,
    replica: str,
    engine: str,
    version: str | None,
    problem: str,
    traffic: Mapping[str, TrafficParams],
    latency: LatencyParams,
    trial: TrialReportParams | None,
    no_route: Sequence[UnroutedParams] = (),
    *,
    ready: bool,
) -> dict[str, Any]:
    """Take in what a gateway answers with, and counts of its traffic; its next report replaces this one.

    Requests that no task answered become proposed wordings, if `gateway.keep` allows keeping them here too.

    If a rule of a trial has enough evidence with these counts, the trial ends.

    Raises:
        ReportRefused: too many replicas, too many bytes, a name that another gateway reports under, or counts of a
            trial that do not follow the last ones. All but the trial's counts is taken in even then.
        TrialUnknown: no trial has the number.
    """
    with instance.db.begin() as connection:
        replicas.record(
            connection,
            instance.assistant,
            replica,
            engine=engine,
            version=version,
            ready=ready,
            problem=problem,
            traffic={group: counts.model_dump() for group, counts in traffic.items()},
            latency=latency.model_dump(),
            # whoever may look sees the counts of a trial; texts of people are for those who may read them
            trial=None if trial is None else trial.model_dump(exclude={"changed"}),
            actor=actor,
        )
    gateway = instance.settings.gateway
    if no_route and gateway.keep == "masked":
        wordings.keep_unrouted(instance, actor, [(each.task, each.text) for each in no_route])
    if trial is not None:
        trials.record(
            instance.db,
            instance.store,
            assistant=instance.assistant,
            replica=replica,
            report=trial.model_dump(mode="json"),
            keep=gateway.keep == "masked",
            keep_days=gateway.keep_days,
        )
    return {}


def fleet(instance: Instance) -> dict[str, Any]:
    """Gateways that reported within a day, each with what it answers with, beside the version that was decided."""
    with instance.db.read() as connection:
        now = replicas.fleet(connection, instance.assistant)
        decided = candidates.get(connection, instance.assistant, now.decided.version) if now.decided else None
    since = now.differs_since
    return {
        "decided": _decision(now.decided, decided.number) if now.decided and decided else None,
        "of": len(now.fresh),
        "serving": now.serving,
        "differs_since": since and since.isoformat(),
        "traffic": now.traffic,
        "replicas": [_replica(now, one) for one in now.replicas],
    }


def _decision(now: Champion, number: int) -> dict[str, Json]:
    return {"number": number, "digest": now.version, "epoch": now.epoch, "at": now.decided_at.isoformat()}


def _statement(instance: Instance, version: Candidate) -> dict[str, Json]:
    """The champion's signed statement, or why there is none."""
    try:
        content = statements.content(instance.db, instance.store, instance.assistant, version)
    except StatementRefused as why:
        return {"statement": None, "problem": str(why)}
    return {"statement": content.decode(), "problem": None}


@lru_cache(maxsize=REMEMBERED)
def _digests(store: ObjectStore, version: str) -> frozenset[str]:
    """Objects of a version's bundle, read and checked once."""
    return bundle.digests(store, version)


def _replica(now: Fleet, one: Replica) -> dict[str, Json]:
    since = one.differs_since(now.decided)
    return {
        "replica": one.replica,
        "engine": one.engine,
        "number": one.number,
        "digest": one.version,
        "ready": one.ready,
        "problem": one.problem,
        "reported_by": one.reported_by,
        "started_at": one.started_at.isoformat(),
        "reported_at": one.reported_at.isoformat(),
        "fresh": now.is_fresh(one),
        "differs_since": since and since.isoformat(),
        "traffic": one.traffic,
        "latency": one.latency,
        "trial": one.trial,
    }
