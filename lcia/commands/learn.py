"""Verbs about tasks in the queue: submit, work on them, answer what they wait for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcia import completing, words
from lcia.commands.frame import (
    DO,
    As,
    Config,
    Item,
    Json,
    Reason,
    Set,
    emit,
    open_place,
    quiet_stdout,
    say,
    say_power,
    verb,
)

if TYPE_CHECKING:
    from lcia.workplace import Workplace


@verb(DO, "lcia submit examples/tasks/booking_slot", "lcia submit examples/tasks/booking_slot --as site")
def submit(
    package: Annotated[Path, typer.Argument(help="Folder with task.yaml and the rows.")],
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Put a task package into the queue."""
    from lcia import verbs
    from lcia.workplace import actor

    item = verbs.submit(open_place(config), package, actor(name))
    emit(item.to_json() | {"known": item.known}, as_json=as_json, text=words.submitted(item))


@verb(DO, "lcia run examples/tasks/booking_slot", "lcia run examples/tasks/booking_slot --set tuning.steps=60 --json")
def run(
    package: Annotated[Path, typer.Argument(help="Folder with task.yaml and the rows.")],
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Submit a task package and work on it until people or the gate have to decide."""
    from lcia import verbs
    from lcia.workplace import actor

    place, who = open_place(config, overrides), actor(name)
    item = verbs.submit(place, package, who)
    if item.known:
        say(words.submitted(item))
    with quiet_stdout(as_json=as_json):
        say_power(place)
        _work(place, name, item.id)
    _end([item.id], place, as_json=as_json)


@verb(DO, "lcia work", "lcia work --watch --every 30")
def work(
    once: Annotated[bool, typer.Option("--once/--watch", help="Stop when nothing is left, or keep watching.")] = True,
    every: Annotated[float, typer.Option(help="Seconds between two looks with --watch.")] = 10.0,
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Bring every open task of the queue as far as it can go."""
    import time

    place = open_place(config, overrides)
    with quiet_stdout(as_json=as_json):
        say_power(place)
        touched = _work(place, name, None)
        while not once:
            time.sleep(every)
            _work(place, name, None)
    if not touched and not as_json:
        print("Nothing to do: the queue holds no open task.")
        return
    _end(touched, place, as_json=as_json)


def _work(place: "Workplace", name: str | None, only: int | None) -> list[int]:
    from lcia import worker
    from lcia.workplace import actor

    return [item.id for item in worker.work(place, actor(name), say, only)]


def _end(items: list[int], place: "Workplace", *, as_json: bool) -> None:
    from components.tasks import queue
    from lcia import verbs

    with place.db.read() as connection:
        found = [queue.item(connection, i) for i in items]
    told = verbs.outcomes(place, found)
    emit(told if len(told) != 1 else told[0], as_json=as_json, text=words.outcomes(told))
    code = max((one["exit_code"] for one in told), default=0)
    if code:
        raise typer.Exit(code)


@verb(DO, "lcia retry 5", "lcia retry 5 --force")
def retry(
    item: Item,
    force: Annotated[bool, typer.Option("--force", help="Learn it although the champion knows it.")] = False,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Put a task that failed, was refused or rejected back into the queue."""
    from components.tasks import queue
    from lcia.workplace import actor

    with open_place(config).db.begin() as connection:
        if force:
            why, answers = "to be learnt although it is known", {"forced": True}
            again = queue.answer(connection, item, "nothing_to_learn", answers, actor=actor(name), reason=why)
        else:
            again = queue.move(connection, None, item, "submitted", "tried again", actor=actor(name))
    emit(again.to_json(), as_json=as_json, text=words.queued(again))


@verb(DO, 'lcia release 5 --reason "a new language, as agreed"')
def release(item: Item, reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Let a task go on that is held because it is unlike everything seen."""
    _answer(item, {"released": True}, reason, name, as_json=as_json, config=config)


@verb(
    DO,
    'lcia regroup 5 g1 --reason "the same instructions in other words"',
    'lcia regroup 5 new --reason "another product"',
)
def regroup(
    item: Item,
    group: Annotated[
        str,
        typer.Argument(metavar="GROUP", help="A group id such as g1, or `new`.", autocompletion=completing.groups),
    ],
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Say which group learns a task that is held between two."""
    from lcia import verbs

    verbs.need_group(open_place(config), item, group)
    _answer(item, {"placed": group}, reason, name, as_json=as_json, config=config)


@verb(DO, 'lcia cancel 5 --reason "the data will be collected again"')
def cancel(item: Item, reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Take a task out of the queue; its package stays where it was submitted from."""
    from components.tasks import queue
    from lcia.workplace import actor

    with open_place(config).db.begin() as connection:
        gone = queue.move(connection, None, item, "cancelled", reason, actor=actor(name))
    emit(gone.to_json(), as_json=as_json, text=f"{gone.name}@{gone.version} is cancelled.")


def _answer(
    item: int, answers: dict[str, Any], reason: str, name: str | None, *, as_json: bool, config: Path | None
) -> None:
    from components.tasks import queue
    from lcia.workplace import actor

    place = open_place(config)
    with place.db.begin() as connection:
        again = queue.answer(connection, item, "held", answers, actor=actor(name), reason=reason)
    emit(again.to_json(), as_json=as_json, text=words.queued(again))


@verb(DO, "lcia demo", "LCIA_HOME=/tmp/lcia-demo lcia demo")
def demo() -> None:
    """Three real tasks through the whole loop, with two demo identities; ends with what was measured."""
    from lcia import demo as demonstration

    demonstration.run(open_place())
