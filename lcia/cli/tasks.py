"""Verbs about tasks in the queue: submit, learn, answer held ones."""

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
from lcia.cli.text import tasks as texts

if TYPE_CHECKING:
    from lcia.instance import Instance


@verb(DO, "lcia submit examples/tasks/booking_slot", "lcia submit examples/tasks/booking_slot --as site")
def submit(
    package: Annotated[
        Path, typer.Argument(metavar="PACKAGE", help="Folder with task.yaml and the rows; or a .zip or .tar.zst of it.")
    ],
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Add a task package to the queue."""
    if on_server():
        from lcia import client

        value = client.submit(package, name)
    else:
        from lcia.instance import actor
        from lcia.operations import tasks

        value = tasks.submit(open_instance(config), package, actor(name)).to_json()
    emit(value, as_json=as_json, text=texts.submission)


@verb(DO, "lcia run examples/tasks/booking_slot", "lcia run examples/tasks/booking_slot --set tuning.steps=60 --json")
def run(
    package: Annotated[
        Path, typer.Argument(metavar="PACKAGE", help="Folder with task.yaml and the rows; or a .zip or .tar.zst of it.")
    ],
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Submit a task package and learn it, up to the point where people decide.

    Exits 1 if it fails or is refused, 2 if the gate is against it, 3 if people have to act.
    """
    here_only("run")
    from lcia.instance import actor
    from lcia.operations import tasks

    instance, who = open_instance(config, overrides), actor(name)
    item = tasks.submit(instance, package, who)
    if item.known:
        say(texts.submission(terminal.fields_visible(item.to_json())))
    with quiet_stdout(as_json=as_json):
        say_power(instance)
        _work(instance, name, item.id)
    _end([item.id], instance, as_json=as_json)


@verb(DO, "lcia work", "lcia work --watch --every 30")
def work(
    once: Annotated[bool, typer.Option("--once/--watch", help="Stop when nothing is left, or keep looking.")] = True,
    every: Annotated[float, typer.Option(metavar="SECONDS", help="With --watch: seconds between two looks.")] = 10.0,
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Take packages from the inbox and bring every open task as far as it can go.

    While another worker is at work, this one tunes waiting tasks of other groups before their turn, so that several
    learn side by side; versions are the same as with one. Exits 1 if a task fails or is refused, 2 if a gate is against
    it, 3 if people have to act; of several tasks, the highest.
    """
    import signal

    from lcia.lineage import LineageBusy

    here_only("work")
    instance = open_instance(config, overrides)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Kubernetes ends a pod so: give the lease back
    with quiet_stdout(as_json=as_json):
        say_power(instance)
        remark = "Nothing to do: the queue holds no open task."
        try:
            items = _work(instance, name, None)
        except LineageBusy as busy:
            early = _tune_ahead(instance, name)
            numbers = f"; tuned before their turn: {', '.join(map(str, early))}" if early else ""
            items, remark = [], f"The tasks are left to the other worker: {busy}{numbers}"
        if not once:
            _watch(instance, name, every)
    if not items and not as_json:
        print(remark)
        return
    _end(items, instance, as_json=as_json)


@verb(DO, "lcia rebase --set base_model.name=models/other-1b --as ops")
def rebase(
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Learn every task of the champion again on another base model. The result is one candidate.

    Name the other model by base_model.name, in zenml.yaml or with --set. Each task is learnt from the rows that its
    owner lets us keep. The gate compares the candidate with the champion task by task, on the same test rows. If it is
    interrupted, run it again: it goes on where it was.
    """
    here_only("rebase")
    from lcia.instance import actor
    from lcia.worker.rebase import rebase as learn_again

    instance = open_instance(config, overrides)
    with quiet_stdout(as_json=as_json):
        value = learn_again(instance, actor(name), say)
    emit(value, as_json=as_json, text=texts.rebase)
    raise typer.Exit(value["exit_code"])


def _watch(instance: "Instance", name: str | None, every: float) -> None:
    """Work until interrupted; a look that fails is tried again, later each time."""
    import time

    from components.storage.database import AccountRefused
    from lcia.lineage import LineageBusy
    from lcia.worker.rounds import Rounds

    rounds = Rounds(instance.db, instance.home, "worker", every)

    def work() -> None:
        try:
            _work(instance, name, None)
        except LineageBusy:
            _tune_ahead(instance, name)

    def serve() -> None:
        with contextlib.suppress(AccountRefused):  # the service looks too, and its account may
            for line in instance.serve_again():
                say(line)

    while True:
        time.sleep(every)
        rounds.run("work", work)
        rounds.run("served", serve)


def _tune_ahead(instance: "Instance", name: str | None) -> list[int]:
    from lcia.instance import actor
    from lcia.worker.ahead import tune_ahead

    return tune_ahead(instance, actor(name), say)


def _work(instance: "Instance", name: str | None, only: int | None) -> list[int]:
    from lcia.instance import actor
    from lcia.worker import loop

    return [item.id for item in loop.work(instance, actor(name), say, only)]


def _end(numbers: list[int], instance: "Instance", *, as_json: bool) -> None:
    from components.tasks import queue
    from lcia.operations import tasks

    with instance.db.read() as connection:
        items = [queue.item(connection, number) for number in numbers]
    outcomes = tasks.outcomes(instance, items)
    emit(outcomes if len(outcomes) != 1 else outcomes[0], as_json=as_json, text=texts.outcomes)
    code = max((one["exit_code"] for one in outcomes), default=0)
    if code:
        raise typer.Exit(code)


@verb(DO, "lcia retry 5", "lcia retry 5 --force")
def retry(
    item: Item,
    force: Annotated[
        bool, typer.Option("--force", help="Learn it although the champion has learnt it already.")
    ] = False,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Put a task back into the queue after it failed, was refused or was rejected."""
    value = perform("retry", name, config, item=item, force=force)
    emit(value, as_json=as_json, text=texts.requeue)


@verb(DO, 'lcia release 5 --reason "a new language, as agreed"')
def release(item: Item, reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Let a task continue that is held because it is unlike all earlier ones."""
    value = perform("release", name, config, item=item, reason=reason)
    emit(value, as_json=as_json, text=texts.requeue)


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
    """Choose the group for a task that is held because it fits two groups."""
    value = perform("regroup", name, config, item=item, group=group, reason=reason)
    emit(value, as_json=as_json, text=texts.requeue)


@verb(DO, 'lcia prioritise 5 3 --reason "the campaign starts on Monday"')
def prioritise(
    item: Item,
    priority: Annotated[int, typer.Argument(metavar="P", help="-10 to 10; 0 is the usual one, higher comes first.")],
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Let a waiting task come before others, or after them. The log records why."""
    value = perform("prioritise", name, config, item=item, priority=priority, reason=reason)
    emit(value, as_json=as_json, text=f"{value['name']}@{value['version']} has priority {priority}.")


@verb(DO, 'lcia pause 5 --reason "the rows are being checked"')
def pause(item: Item, reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Hold a waiting task back until `lcia resume`."""
    value = perform("pause", name, config, item=item, reason=reason)
    emit(value, as_json=as_json, text=f"{value['name']}@{value['version']} is paused.")


@verb(DO, "lcia resume 5")
def resume(item: Item, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Let a paused task go on."""
    value = perform("resume", name, config, item=item)
    emit(value, as_json=as_json, text=texts.requeue)


@verb(DO, 'lcia cancel 5 --reason "the data will be collected again"')
def cancel(item: Item, reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Take a task out of the queue. Its package stays where it was submitted from."""
    value = perform("cancel", name, config, item=item, reason=reason)
    emit(value, as_json=as_json, text=f"{value['name']}@{value['version']} is cancelled.")


@verb(DO, "lcia demo", "LCIA_HOME=/tmp/lcia-demo lcia demo")
def demo() -> None:
    """Learn three real tasks with two demo identities, and print what was measured.

    One identity submits, the other approves. Running it again changes nothing. It takes the profile `quick`, whatever
    zenml.yaml names; other values of that file hold.
    """
    here_only("demo")
    from lcia.cli.demo import run_demo

    if not run_demo(open_instance(overrides=["profile=quick"])):
        raise typer.Exit(1)
