"""The train: versions that people have not decided about, each made on the one before it, the first on the champion.

A task is learnt on the end of the train, so learning does not wait for people. Promoting the first of the train makes
it shorter; rejecting one sets those behind it aside, and the worker carries them over to what stands then. A version
that the gate stands against waits beside the train: nothing is learnt on it.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from components.audit.log import SYSTEM, Actor
from components.promotion import candidates
from components.promotion.candidates import Candidate
from components.promotion.judging import gate_stands_against
from components.settings import GateSettings
from components.tasks import queue


def members(connection: Connection, assistant: str, policy: GateSettings) -> list[Candidate]:
    """The versions of the train, the first to be decided first."""
    pending = candidates.versions(connection, assistant, "pending")
    train: list[Candidate] = []
    end = candidates.in_use(connection, assistant)
    while True:
        on_it = [one for one in pending if one.parent == end and not gate_stands_against(one.verdict, policy)]
        if not on_it:
            return train
        train.append(on_it[-1])
        end = on_it[-1].digest


def end(connection: Connection, assistant: str, policy: GateSettings) -> str | None:
    """Digest of the version that the next task is learnt on: the train's last, or the champion; None before any."""
    train = members(connection, assistant, policy)
    return train[-1].digest if train else candidates.in_use(connection, assistant)


def undecided_base(connection: Connection, version: Candidate) -> Candidate | None:
    """The version that an undecided one was made on, if people have to decide about that one first."""
    if version.state != "pending" or version.parent is None:
        return None
    base = candidates.get(connection, version.assistant, version.parent)
    return base if base.state == "pending" else None


def set_aside(connection: Connection, assistant: str, why: str, actor: Actor = SYSTEM) -> list[Candidate]:
    """End every undecided version that does not lead back to the champion any more; their tasks are queued again.

    `why` says which decision it was. Part of the deciding transaction.
    """
    adrift = without_base(
        candidates.versions(connection, assistant, "pending"), candidates.in_use(connection, assistant)
    )
    for version in adrift:
        candidates.move(connection, version, "superseded", why)
        if version.item is not None:
            again = f"version {version.number} is carried over to what stands now: {why}"
            queue.move(connection, None, version.item, "submitted", again, actor=actor)
    return adrift


def without_base(pending: Sequence[Candidate], champion: str | None) -> list[Candidate]:
    """Those of the undecided versions, in order of their numbers, that do not lead back to the champion."""
    standing, adrift = {champion}, []
    for version in pending:
        if version.parent in standing:
            standing.add(version.digest)
        else:
            adrift.append(version)
    return adrift
