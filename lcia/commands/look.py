"""Verbs that look and change nothing."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lcia import words
from lcia.commands.frame import (
    LOOK,
    All,
    As,
    Config,
    Json,
    Maybe,
    Number,
    Set,
    Version,
    emit,
    here_only,
    open_place,
    perform,
    quiet_stdout,
    say_power,
    verb,
)


@verb(LOOK, "lcia status", "lcia status --all", "lcia status --json")
def status(everything: All = False, as_json: Json = False, config: Config = None) -> None:
    """Champion, queue, candidates and log."""
    value = perform("status", None, config)
    emit(value, as_json=as_json, text=partial(words.status, everything=everything))


@verb(LOOK, "lcia matrix", "lcia matrix --version 4")
def matrix(version: Version = None, as_json: Json = False, config: Config = None) -> None:
    """The accuracy matrix along the ancestors of a version, with Avg.ACC, New.ACC, BWT and Forgetting."""
    value = perform("matrix", None, config, version=version)
    emit(value, as_json=as_json, text=words.matrix)


@verb(LOOK, "lcia show", "lcia show 4 --json")
def show(
    version: Maybe = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Everything a decision about a version rests on: gate rows, curve, groups, matrix, approvals."""
    value = perform("show", None, config, version=version)
    emit(value, as_json=as_json, text=words.show)


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
    text = f"written to {html}" if html else words.flips
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
    place = open_place(config, overrides)
    from lcia import planning

    with quiet_stdout(as_json=as_json):
        say_power(place)
        value = planning.plan(place, package)
    emit(value, as_json=as_json, text=words.plan)
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
    from lcia import answering

    with quiet_stdout(as_json=as_json):
        value = answering.ask(open_place(config), instruction, text, version, base=base, images=images)
    emit(value, as_json=as_json, text=words.answer, as_is=("answer",))


@verb(LOOK, "lcia reevaluate", "lcia reevaluate 3 --json")
def reevaluate(
    version: Maybe = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Predict all test rows of a version again and compare with its stored predictions; 1 if more than ties differ."""
    here_only("reevaluate")
    from lcia import answering

    with quiet_stdout(as_json=as_json):
        value = answering.reevaluate(open_place(config), version)
    emit(value, as_json=as_json, text=words.reevaluation, as_is=("before", "again"))
    if not value["ok"]:
        raise typer.Exit(1)
