"""Verbs about tasks in the queue: submit, work on them, answer what they wait for."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcia.cli import completion, terminal
from lcia.cli.app import (
    DO,
    As,
    Config,
    Item,
    Json,
    Reason,
    Set,
    emit,
    here_only,
    on_server,
    open_instance,
    perform,
    quiet_stdout,
    say,
    say_power,
    verb,
)
from lcia.cli.text import versions

if TYPE_CHECKING:
    from lcia.instance import Instance


@verb(DO, "lcia submit examples/tasks/booking_slot", "lcia submit examples/tasks/booking_slot --as site")
def submit(
    package: Annotated[Path, typer.Argument(help="Folder with task.yaml and the rows.")],
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Put a task package into the queue."""
    if on_server():
        from lcia import client

        value = client.submit(package, name)
    else:
        from lcia.instance import actor
        from lcia.operations import tasks

        value = tasks.submit(open_instance(config), package, actor(name)).to_json()
    emit(value, as_json=as_json, text=versions.submitted)


@verb(DO, "lcia run examples/tasks/booking_slot", "lcia run examples/tasks/booking_slot --set tuning.steps=60 --json")
def run(
    package: Annotated[Path, typer.Argument(help="Folder with task.yaml and the rows.")],
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Submit a task package and work on it until people or the gate have to decide."""
    here_only("run")
    from lcia.instance import actor
    from lcia.operations import tasks

    instance, who = open_instance(config, overrides), actor(name)
    item = tasks.submit(instance, package, who)
    if item.known:
        say(versions.submitted(terminal.fields_visible(item.to_json())))
    with quiet_stdout(as_json=as_json):
        say_power(instance)
        _work(instance, name, item.id)
    _end([item.id], instance, as_json=as_json)


@verb(DO, "lcia work", "lcia work --watch --every 30")
def work(
    once: Annotated[bool, typer.Option("--once/--watch", help="Stop when nothing is left, or keep watching.")] = True,
    every: Annotated[float, typer.Option(help="Seconds between two looks with --watch.")] = 10.0,
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Take what lies in the inbox and bring every open task of the queue as far as it can go.

    Where another worker is at work this one leaves it to that: two are safe together.
    """
    import signal

    from lcia.lineage import LineageBusy

    here_only("work")
    instance = open_instance(config, overrides)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a pod that has to go: the lease is given back
    with quiet_stdout(as_json=as_json):
        say_power(instance)
        left = "Nothing to do: the queue holds no open task."
        try:
            touched = _work(instance, name, None)
        except LineageBusy as busy:
            touched, left = [], f"Left to it: {busy}"
        if not once:
            _watch(instance, name, every)
    if not touched and not as_json:
        print(left)
        return
    _end(touched, instance, as_json=as_json)


@verb(DO, "lcia rebase", "lcia rebase --set base_model.name=models/other-1b --as ops")
def rebase(
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Let another base model learn every task of the champion again, and compare the two.

    base_model names the other model. Each task is learnt from the rows its owner lets us keep. The result is one
    candidate, judged by the same gate against the champion: task by task, on the same test rows. Interrupted, it goes
    on where it was.
    """
    here_only("rebase")
    from lcia.instance import actor
    from lcia.worker import rebase as rebasing

    instance = open_instance(config, overrides)
    with quiet_stdout(as_json=as_json):
        value = rebasing.rebase(instance, actor(name), say)
    emit(value, as_json=as_json, text=versions.rebased)
    raise typer.Exit(value["exit_code"])


def _watch(instance: "Instance", name: str | None, every: float) -> None:
    """Work until interrupted; whatever one look raises, there is a next one, later each time."""
    import time

    from components.storage.database import AccountRefused
    from lcia.lineage import LineageBusy
    from lcia.worker.rounds import Rounds

    rounds = Rounds(instance.db, instance.home, "worker", every)

    def work() -> None:
        with contextlib.suppress(LineageBusy):
            _work(instance, name, None)

    def served() -> None:
        with contextlib.suppress(AccountRefused):  # the service, whose account may, looks too
            for words_ in instance.serve_again():
                say(words_)

    while True:
        time.sleep(every)
        rounds.run("work", work)
        rounds.run("served", served)


def _work(instance: "Instance", name: str | None, only: int | None) -> list[int]:
    from lcia.instance import actor
    from lcia.worker import loop

    return [item.id for item in loop.work(instance, actor(name), say, only)]


def _end(items: list[int], instance: "Instance", *, as_json: bool) -> None:
    from components.tasks import queue
    from lcia.operations import tasks

    with instance.db.read() as connection:
        found = [queue.item(connection, i) for i in items]
    told = tasks.outcomes(instance, found)
    emit(told if len(told) != 1 else told[0], as_json=as_json, text=versions.outcomes)
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
    value = perform("retry", name, config, item=item, force=force)
    emit(value, as_json=as_json, text=versions.queued)


@verb(DO, 'lcia release 5 --reason "a new language, as agreed"')
def release(item: Item, reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Let a task go on that is held because it is unlike everything seen."""
    value = perform("release", name, config, item=item, reason=reason)
    emit(value, as_json=as_json, text=versions.queued)


@verb(
    DO,
    'lcia regroup 5 g1 --reason "the same instructions in other words"',
    'lcia regroup 5 new --reason "another product"',
)
def regroup(
    item: Item,
    group: Annotated[
        str,
        typer.Argument(metavar="GROUP", help="A group id such as g1, or `new`.", autocompletion=completion.groups),
    ],
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Say which group learns a task that is held between two."""
    value = perform("regroup", name, config, item=item, group=group, reason=reason)
    emit(value, as_json=as_json, text=versions.queued)


@verb(DO, 'lcia cancel 5 --reason "the data will be collected again"')
def cancel(item: Item, reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Take a task out of the queue; its package stays where it was submitted from."""
    value = perform("cancel", name, config, item=item, reason=reason)
    emit(value, as_json=as_json, text=f"{value['name']}@{value['version']} is cancelled.")


@verb(DO, "lcia demo", "LCIA_HOME=/tmp/lcia-demo lcia demo")
def demo() -> None:
    """Three real tasks through the whole loop, with two demo identities; ends with what was measured."""
    here_only("demo")
    from lcia.cli import demo as demonstration

    if not demonstration.run(open_instance()):
        raise typer.Exit(1)
