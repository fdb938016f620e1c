"""Verbs about versions: status, evidence, comparison, answers, export."""

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lcia.cli import batches, completion
from lcia.cli.app import (
    DO,
    LOOK,
    All,
    As,
    Config,
    FallbackOption,
    Json,
    Maybe,
    Number,
    Set,
    Version,
    audit_verbs,
    emit,
    here_only,
    on_server,
    open_instance,
    perform,
    quiet_stdout,
    read_settings,
    say_power,
    verb,
)
from lcia.cli.text import status as status_text
from lcia.cli.text import tables, versions
from lcia.cli.text import tasks as task_texts


@verb(LOOK, "lcia status", "lcia status --all", "lcia status --json")
def status(everything: All = False, as_json: Json = False, config: Config = None) -> None:
    """Show the champion and whether MLflow serves it, the queue, who has to approve what, and the length of the log."""
    value = perform("status", None, config)
    emit(value, as_json=as_json, text=partial(status_text.status, everything=everything))


@verb(LOOK, "lcia matrix", "lcia matrix --version 4")
def matrix(version: Version = None, as_json: Json = False, config: Config = None) -> None:
    """Show how well each version up to this one does each task, with Avg.ACC, New.ACC, BWT and Forgetting.

    Avg.ACC is the mean score of all tasks now, New.ACC that of each task when it was learnt. BWT (backward transfer) is
    the mean change since then; Forgetting is the mean drop from the best score a task ever had.
    """
    value = perform("matrix", None, config, version=version)
    emit(value, as_json=as_json, text=versions.matrix)


@verb(LOOK, "lcia show", "lcia show 4 --json")
def show(
    version: Maybe = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show the evidence for a version: how it was tuned, its gate, groups, costs and approvals."""
    value = perform("show", None, config, version=version)
    emit(value, as_json=as_json, text=versions.show)


@verb(LOOK, "lcia flips 4 --as ops", "lcia flips 4 --as ops --html flips.html")
def flips(
    version: Number,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write them to FILE as an HTML page.")
    ] = None,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show the test rows of earlier tasks that a version answers differently. The log records who looked."""
    value = perform("flips", name, config, version=version)
    if html is not None:
        from components.evaluation.reports import Flip, flips_html

        title = f"Changed predictions of prior tasks in version {value['version']}"
        task_of = {image: flip["task"] for flip in value["flips"] for image in flip["images"]}
        images = {
            image: perform("image", name, config, version=version, task=task, image=image)["content"]
            for image, task in task_of.items()
        }
        html.write_text(flips_html([Flip(**flip) for flip in value["flips"]], title, images), encoding="utf-8")
    text = f"written to {html}" if html else versions.flips
    emit(value, as_json=as_json, text=text, as_is=("prompt", "expected", "before", "after"))


@verb(LOOK, "lcia plan examples/tasks/booking_slot", "lcia plan examples/tasks/booking_slot --set tuning.steps=60")
def plan(
    package: Annotated[
        Path, typer.Argument(metavar="PACKAGE", help="Folder with task.yaml and the rows; or a .zip or .tar.zst of it.")
    ],
    overrides: Set = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Check a task package without submitting it: its data, drift, group, cost, and number of test rows.

    Exits 1 if it would be refused, 3 if people would have to act.
    """
    here_only("plan")
    instance = open_instance(config, overrides)
    from lcia.worker.plan import plan as assess

    with quiet_stdout(as_json=as_json):
        say_power(instance)
        value = assess(instance, package)
    emit(value, as_json=as_json, text=task_texts.plan)
    if value["exit_code"]:
        raise typer.Exit(value["exit_code"])


@verb(
    LOOK,
    'lcia ask "Rewrite the sentence in the passive voice." --input "The cat saw the dog."',
    'lcia ask "What is the capital of France?" --base',
    'lcia ask "Which digit is shown?" --image digit.png',
)
def ask(
    instruction: Annotated[str, typer.Argument(metavar="INSTRUCTION", help="The instruction, worded as in a task.")],
    text: Annotated[
        str | None, typer.Option("--input", metavar="TEXT", help="Input that belongs to the instruction.")
    ] = None,
    images: Annotated[
        list[Path], typer.Option("--image", metavar="FILE", help="Image that belongs to it; repeatable.")
    ] = [],  # noqa: B006
    version: Version = None,
    base: Annotated[bool, typer.Option("--base", help="Ask the base model without adapters.")] = False,
    fallback: FallbackOption = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Answer one instruction with the champion; a router picks the adapter.

    With `gateway.address` in the settings the gateway there answers, and no model is loaded here.
    """
    from lcia.inference import ask as answers

    how = batches.fallback(fallback)
    with quiet_stdout(as_json=as_json):
        _, _, settings = read_settings(config, None, touch=not on_server())
        if settings.gateway.address:
            value = answers.ask_gateway(settings, instruction, text, version, base=base, images=images, fallback=how)
        else:
            here_only("ask")
            instance = open_instance(config)
            value = answers.ask(instance, instruction, text, version, base=base, images=images, fallback=how)
    emit(value, as_json=as_json, text=versions.answer, as_is=("answer",))


@verb(
    LOOK,
    'lcia route "Is this film any good?" --input "A dull and endless film."',
    "lcia route --batch requests.jsonl --version 4",
)
def route(
    instruction: Annotated[
        str | None, typer.Argument(metavar="INSTRUCTION", help="The instruction, as people type it.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--input", metavar="TEXT", help="Input that belongs to the instruction.")
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            "--batch", metavar="FILE", help='Rows {"instruction": ..., "input": ...}; prints a line for each.'
        ),
    ] = None,
    fallback: FallbackOption = None,
    version: Version = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Say which task would answer a request, how sure that is, and why; loads no base model.

    With --batch each line of output is one JSON object, in the order of the rows.
    """
    requests, how = batches.requests(instruction, text, batch), batches.fallback(fallback)
    with quiet_stdout(as_json=as_json or batch is not None):
        answers = [
            perform("route", None, config, requests=some, version=version, fallback=how)
            for some in batches.portions(requests)
        ]
    if batch is not None:
        for answer in answers:
            for one in answer["routes"]:
                emit({"version": answer["version"], **one}, as_json=True, text="")
        return
    value = {"version": answers[0]["version"], "digest": answers[0]["digest"], **answers[0]["routes"][0]}
    emit(value, as_json=as_json, text=versions.route)


@verb(LOOK, "lcia reevaluate", "lcia reevaluate 3 --json")
def reevaluate(
    version: Maybe = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Predict a version's test rows again and compare. Exits 1 if one differs.

    Rows where two answers are almost equally likely (near ties) may differ: rounding depends on how rows are batched.
    """
    here_only("reevaluate")
    from lcia.inference.ask import reevaluate as predict_again

    with quiet_stdout(as_json=as_json):
        value = predict_again(open_instance(config), version)
    emit(value, as_json=as_json, text=versions.reevaluation, as_is=("before", "again"))
    if not value["ok"]:
        raise typer.Exit(1)


@verb(LOOK, "lcia tasks", "lcia tasks --state promoted --owner reviews", "lcia tasks --all --json")
def tasks(
    state: Annotated[
        str | None, typer.Option("--state", metavar="STATE", help="Only tasks in this state, such as held.")
    ] = None,
    owner: Annotated[str | None, typer.Option("--owner", metavar="SITE", help="Only tasks of this site.")] = None,
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List the tasks: state, group, score now and when learnt, which of its rows may be kept, cost."""
    entries = perform("tasks", None, config, state=state, owner=owner)["tasks"]
    emit(entries, as_json=as_json, text=partial(tables.tasks, everything=everything))


@verb(LOOK, "lcia candidates", "lcia candidates --state rejected")
def candidates(
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="Only pending, promoted, rejected, or superseded (the champion changed before people decided).",
        ),
    ] = None,
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List all versions: state, gate, task, parent, attempt, and who approved or rejected them."""
    entries = perform("candidates", None, config, state=state)["candidates"]
    emit(entries, as_json=as_json, text=partial(tables.versions, everything=everything))


@verb(LOOK, "lcia lineage", "lcia lineage 4 --json")
def lineage(version: Maybe = None, as_json: Json = False, config: Config = None) -> None:
    """Show a version's ancestors, when each was champion, and what branched off."""
    value = perform("lineage", None, config, version=version)
    emit(value, as_json=as_json, text=tables.lineage)


@verb(LOOK, "lcia diff 3 4", "lcia diff 1 --json")
def diff(
    before: Annotated[
        str, typer.Argument(metavar="A", help="Number or digest of a version.", autocompletion=completion.versions)
    ],
    after: Annotated[
        str | None,
        typer.Argument(
            metavar="B", help="The other version; default the champion.", autocompletion=completion.versions
        ),
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Compare two versions: tasks, groups, adapters, scores with intervals, changed rows, settings."""
    value = perform("diff", None, config, before=before, after=after)
    emit(value, as_json=as_json, text=tables.diff)


@verb(
    LOOK,
    "lcia audit show --tail 20",
    "lcia audit show --kind candidate --person ops --since 2026-01-31",
    on=audit_verbs,
    name="show",
)
def audit_show(
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", metavar="ACTION", help="Only this action, such as candidate.approved, or its first part."
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option("--subject", metavar="TEXT", help="Only entries about this task, or a digest that begins so."),
    ] = None,
    person: Annotated[str | None, typer.Option("--person", metavar="NAME", help="Only what this person did.")] = None,
    since: Annotated[
        datetime | None, typer.Option("--since", metavar="TIME", help="Only entries since then, UTC.")
    ] = None,
    tail: Annotated[int | None, typer.Option("--tail", metavar="N", min=0, help="Only the last N entries.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List entries of the log: who did what to what, and why."""
    value = perform("entries", None, config, kind=kind, subject=subject, person=person, since=since, tail=tail)
    emit(value["entries"], as_json=as_json, text=tables.entries)


@verb(DO, "lcia export served", "lcia export served --version 3")
def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder to write to.")],
    version: Version = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write a version as plain PEFT folders with router and manifest, and print how vLLM serves it."""
    here_only("export")
    from lcia.inference.ask import export as write

    with quiet_stdout(as_json=as_json):
        value = write(open_instance(config), version, folder)
    emit(value, as_json=as_json, text=versions.export)
