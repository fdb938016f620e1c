"""Verbs that list and compare what the state holds."""

from datetime import datetime
from functools import partial
from typing import Annotated

import typer

from lcia import completing, listing_words
from lcia.commands.frame import LOOK, All, Config, Json, Maybe, Number, audit, emit, perform, verb


@verb(LOOK, "lcia tasks", "lcia tasks --state promoted --owner reviews", "lcia tasks --all --json")
def tasks(
    state: Annotated[str | None, typer.Option("--state", help="Only tasks in this state, such as held.")] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="Only tasks of this site.")] = None,
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Every task: where it stands, its group, its score now and when learnt, what may be kept of it, what it cost."""
    found = perform("tasks", None, config, state=state, owner=owner)["tasks"]
    emit(found, as_json=as_json, text=partial(listing_words.tasks, everything=everything))


@verb(LOOK, "lcia candidates", "lcia candidates --state rejected")
def candidates(
    state: Annotated[str | None, typer.Option("--state", help="pending, promoted, rejected or superseded.")] = None,
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Every version ever proposed: state, gate, task, parent, attempt, and who said yes or no."""
    found = perform("candidates", None, config, state=state)["candidates"]
    emit(found, as_json=as_json, text=partial(listing_words.versions, everything=everything))


@verb(LOOK, "lcia lineage", "lcia lineage 4 --json")
def lineage(version: Maybe = None, as_json: Json = False, config: Config = None) -> None:
    """The versions a version was made on, when each was champion, and what branched off."""
    found = perform("lineage", None, config, version=version)
    emit(found, as_json=as_json, text=listing_words.lineage)


@verb(LOOK, "lcia diff 3 4", "lcia diff 1 --json")
def diff(
    before: Number,
    after: Annotated[
        str | None,
        typer.Argument(
            metavar="[N]", help="Another version; default the champion.", autocompletion=completing.versions
        ),
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """What differs between two versions: tasks, groups, adapters, scores with intervals, changed rows, settings."""
    found = perform("diff", None, config, before=before, after=after)
    emit(found, as_json=as_json, text=listing_words.diff)


@verb(
    LOOK,
    "lcia audit show --tail 20",
    "lcia audit show --kind candidate --person ops --since 2026-01-31",
    on=audit,
    name="show",
)
def audit_show(
    kind: Annotated[str | None, typer.Option("--kind", help="An action, such as candidate.approved or task.")] = None,
    subject: Annotated[str | None, typer.Option("--subject", help="A task, or the beginning of a digest.")] = None,
    person: Annotated[str | None, typer.Option("--person", help="Who acted.")] = None,
    since: Annotated[datetime | None, typer.Option("--since", help="From this moment on, UTC.")] = None,
    tail: Annotated[int | None, typer.Option("--tail", metavar="N", min=0, help="Only the last N.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Entries of the log: who did what to what, and why."""
    filters = {"kind": kind, "subject": subject, "person": person, "since": since, "tail": tail}
    found = perform("entries", None, config, **filters)["entries"]
    emit(found, as_json=as_json, text=listing_words.entries)
