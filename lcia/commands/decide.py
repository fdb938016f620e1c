"""Verbs by which people decide about versions."""

from typing import Annotated

import typer

from lcia import completing, words
from lcia.commands.frame import DO, As, Config, Json, Number, Pending, Reason, Set, emit, open_place, quiet_stdout, verb


@verb(DO, 'lcia approve 4 --reason "flips read"', 'lcia approve 4 --reason "flips read" --as ops --json')
def approve(
    version: Pending,
    reason: Reason = "approved",
    override: Annotated[bool, typer.Option("--override", help="In spite of the gate; several people must.")] = False,
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Say yes to a candidate; with the last yes that policy asks for it becomes the champion."""
    from lcia import verbs
    from lcia.workplace import actor

    with quiet_stdout(as_json=as_json):
        candidate, made = verbs.approve(open_place(config, overrides), version, actor(name), reason, override=override)
    value = {"version": candidate.number, "digest": candidate.digest, "state": candidate.state}
    value["epoch"] = made.epoch if made else None
    emit(value, as_json=as_json, text=words.approved(candidate, made))
    if made is None:
        raise typer.Exit(3)


@verb(DO, 'lcia reject 4 --reason "answers became longer"')
def reject(
    version: Pending,
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Say no to a candidate; it ends."""
    from lcia import verbs
    from lcia.workplace import actor

    candidate = verbs.reject(open_place(config), version, actor(name), reason)
    value = {"version": candidate.number, "digest": candidate.digest, "state": candidate.state}
    emit(value, as_json=as_json, text=f"Version {candidate.number} is rejected.")


@verb(DO, 'lcia revoke 4 --reason "read the flips again"')
def revoke(
    version: Pending,
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Take back your own yes to a version that waits for more; after the promotion only a rollback helps."""
    from lcia import verbs
    from lcia.workplace import actor

    candidate, taken = verbs.revoke(open_place(config), version, actor(name), reason)
    value = {"version": candidate.number, "digest": candidate.digest, "state": candidate.state}
    value |= {"person": taken.person, "revoked": True}
    emit(value, as_json=as_json, text=f"{taken.person}'s approval of version {candidate.number} counts no more.")


@verb(DO, 'lcia supersede movie_sentiment@1 movie_sentiment@2 --reason "the site cleaned its rows"')
def supersede(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The replaced task.", autocompletion=completing.tasks)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What replaces it.", autocompletion=completing.tasks)],
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Declare that a learnt task replaces an earlier one, which is shown still but protected by the gate no more."""
    from lcia import verbs
    from lcia.workplace import actor

    item = verbs.supersede(open_place(config), old, new, actor(name), reason)
    text = f"{item.name}@{item.version} is superseded by {item.answers['superseded_by']}, from the next candidate on."
    emit(item.to_json(), as_json=as_json, text=text)


@verb(DO, 'lcia rollback 3 --reason "complaints"')
def rollback(
    version: Number,
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Make an earlier champion the champion again."""
    from lcia import verbs
    from lcia.workplace import actor

    with quiet_stdout(as_json=as_json):
        made = verbs.rollback(open_place(config), version, actor(name), reason)
    text = f"Version {version.removeprefix('v')} is the champion again (epoch {made.epoch})."
    emit(made.to_json(), as_json=as_json, text=text)
