"""Verbs about versions: status, evidence, comparison, answers, export."""

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lcia.cli import completion
from lcia.cli.app import (
    DO,
    LOOK,
    All,
    As,
    Config,
    Json,
    Maybe,
    Number,
    Set,
    Version,
    audit,
    emit,
    here_only,
    open_instance,
    perform,
    quiet_stdout,
    say_power,
    verb,
)
from lcia.cli.text import tables, versions


@verb(LOOK, "lcia status", "lcia status --all", "lcia status --json")
def status(everything: All = False, as_json: Json = False, config: Config = None) -> None:
    """Champion, queue, candidates and log."""
    value = perform("status", None, config)
    emit(value, as_json=as_json, text=partial(versions.status, everything=everything))


@verb(LOOK, "lcia matrix", "lcia matrix --version 4")
def matrix(version: Version = None, as_json: Json = False, config: Config = None) -> None:
    """The accuracy matrix along the ancestors of a version, with Avg.ACC, New.ACC, BWT and Forgetting."""
    value = perform("matrix", None, config, version=version)
    emit(value, as_json=as_json, text=versions.matrix)


@verb(LOOK, "lcia show", "lcia show 4 --json")
def show(
    version: Maybe = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Everything a decision about a version rests on: gate rows, curve, groups, matrix, approvals."""
    value = perform("show", None, config, version=version)
    emit(value, as_json=as_json, text=versions.show)


@verb(LOOK, "lcia flips 4 --as ops", "lcia flips 4 --as ops --html flips.html")
def flips(
    version: Number,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page instead.")] = None,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """The test rows of prior tasks that a version changed; who looks is entered in the log."""
    value = perform("flips", name, config, version=version)
    if html is not None:
        from components.evaluation.reports import Flip, flips_html

        title = f"Changed predictions of prior tasks in version {value['version']}"
        shown = {image: flip["task"] for flip in value["flips"] for image in flip["images"]}
        images = {
            image: perform("image", name, config, version=version, task=task, image=image)["content"]
            for image, task in shown.items()
        }
        html.write_text(flips_html([Flip(**flip) for flip in value["flips"]], title, images), encoding="utf-8")
    text = f"written to {html}" if html else versions.flips
    emit(value, as_json=as_json, text=text, as_is=("prompt", "expected", "before", "after"))


@verb(LOOK, "lcia plan examples/tasks/booking_slot", "lcia plan examples/tasks/booking_slot --set tuning.steps=60")
def plan(
    package: Annotated[Path, typer.Argument(help="Folder with task.yaml and the rows.")],
    overrides: Set = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Assess a task package: checks, drift, group, cost, and whether its test split is large enough."""
    here_only("plan")
    instance = open_instance(config, overrides)
    from lcia.worker import plan as planning

    with quiet_stdout(as_json=as_json):
        say_power(instance)
        value = planning.plan(instance, package)
    emit(value, as_json=as_json, text=versions.plan)
    if value["exit_code"]:
        raise typer.Exit(value["exit_code"])


@verb(
    LOOK,
    'lcia ask "Rewrite the sentence in the passive voice." --input "The cat saw the dog."',
    'lcia ask "What is the capital of France?" --base',
    'lcia ask "Which digit is shown?" --image digit.png',
)
def ask(
    instruction: Annotated[str, typer.Argument(help="What to do, as a task's instruction says it.")],
    text: Annotated[str | None, typer.Option("--input", metavar="TEXT", help="What to do it to.")] = None,
    images: Annotated[list[Path], typer.Option("--image", metavar="FILE", help="What it is about.")] = [],  # noqa: B006
    version: Version = None,
    base: Annotated[bool, typer.Option("--base", help="Ask the base model alone.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Answer one instruction by the champion, through the routed adapter."""
    here_only("ask")
    from lcia.inference import ask as answering

    with quiet_stdout(as_json=as_json):
        value = answering.ask(open_instance(config), instruction, text, version, base=base, images=images)
    emit(value, as_json=as_json, text=versions.answer, as_is=("answer",))


@verb(LOOK, "lcia reevaluate", "lcia reevaluate 3 --json")
def reevaluate(
    version: Maybe = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Predict all test rows of a version again and compare with its stored predictions; 1 if more than ties differ."""
    here_only("reevaluate")
    from lcia.inference import ask as answering

    with quiet_stdout(as_json=as_json):
        value = answering.reevaluate(open_instance(config), version)
    emit(value, as_json=as_json, text=versions.reevaluation, as_is=("before", "again"))
    if not value["ok"]:
        raise typer.Exit(1)


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
    emit(found, as_json=as_json, text=partial(tables.tasks, everything=everything))


@verb(LOOK, "lcia candidates", "lcia candidates --state rejected")
def candidates(
    state: Annotated[str | None, typer.Option("--state", help="pending, promoted, rejected or superseded.")] = None,
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Every version ever proposed: state, gate, task, parent, attempt, and who said yes or no."""
    found = perform("candidates", None, config, state=state)["candidates"]
    emit(found, as_json=as_json, text=partial(tables.versions, everything=everything))


@verb(LOOK, "lcia lineage", "lcia lineage 4 --json")
def lineage(version: Maybe = None, as_json: Json = False, config: Config = None) -> None:
    """The versions a version was made on, when each was champion, and what branched off."""
    found = perform("lineage", None, config, version=version)
    emit(found, as_json=as_json, text=tables.lineage)


@verb(LOOK, "lcia diff 3 4", "lcia diff 1 --json")
def diff(
    before: Number,
    after: Annotated[
        str | None,
        typer.Argument(
            metavar="[N]", help="Another version; default the champion.", autocompletion=completion.versions
        ),
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """What differs between two versions: tasks, groups, adapters, scores with intervals, changed rows, settings."""
    found = perform("diff", None, config, before=before, after=after)
    emit(found, as_json=as_json, text=tables.diff)


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
    emit(found, as_json=as_json, text=tables.entries)


@verb(DO, "lcia export served", "lcia export served --version 3")
def export(
    folder: Annotated[Path, typer.Argument(help="A new folder to write to.")],
    version: Version = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write a version as plain PEFT folders with its router and manifest, and say how vLLM serves it."""
    here_only("export")
    from lcia.inference import ask

    with quiet_stdout(as_json=as_json):
        value = ask.export(open_instance(config), version, folder)
    emit(value, as_json=as_json, text=versions.exported)
