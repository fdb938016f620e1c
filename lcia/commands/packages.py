"""Verbs that make task packages: from nothing, or from a data set that is there."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lcia.commands.frame import DO, Json, emit, verb

NAME = typer.Option(help="Name of the task: lower-case letters, digits, - and _.")
Version = Annotated[str, typer.Option("--version", help="Version of the task.")]
Owner = Annotated[str, typer.Option(help="The site that owns the rows.")]
Licence = Annotated[str, typer.Option(help="Licence of the rows, an SPDX identifier where there is one.")]
Description = Annotated[str, typer.Option(help="What the task is, for people.")]
Choices = Annotated[list[str], typer.Option("--choice", help="An allowed answer; repeatable.")]


@verb(DO, "lcia new city_names --owner north --licence CC-BY-4.0", "lcia new urgency --choice low --choice high")
def new(
    folder: Annotated[Path, typer.Argument(metavar="NAME", help="The task's name, and the folder that is made.")],
    owner: Owner = "site",
    licence: Licence = "LicenseRef-own",
    description: Description = "Say here what the task is.",
    choices: Choices = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
) -> None:
    """Write the skeleton of a task package, with example rows to be replaced."""
    from components.tasks.importing import skeleton

    made = skeleton(folder, _header(folder.name, "1", owner, licence, description, choices))
    text = f"{made.task.label} in {folder}: replace the rows of its three files, then `lcia plan {folder}`"
    emit({"folder": str(folder), "task": made.task.label}, as_json=as_json, text=text)


@verb(
    DO,
    "lcia import reviews --name review_mood --instruction 'Positive or negative?' --input text --output label",
    "lcia import chats.parquet --name support --owner north",
    name="import",
)
def import_(
    source: Annotated[Path, typer.Argument(help="Folder or file of a data set: Parquet, JSON Lines, Arrow.")],
    name: Annotated[str, NAME],
    folder: Annotated[Path | None, typer.Option("--to", help="Folder to write; default the task's name.")] = None,
    instruction: Annotated[str | None, typer.Option(help="The instruction of all rows, as text.")] = None,
    instruction_column: Annotated[str | None, typer.Option(help="Column with the instruction.")] = None,
    input_column: Annotated[str | None, typer.Option("--input", help="Column with the input.")] = None,
    output_column: Annotated[str | None, typer.Option("--output", help="Column with the answer.")] = None,
    image_column: Annotated[str | None, typer.Option("--image", help="Column with the image, or the images.")] = None,
    version: Version = "1",
    owner: Owner = "site",
    licence: Licence = "LicenseRef-own",
    description: Description = "Imported; say here what the task is.",
    choices: Choices = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
) -> None:
    """Make a task package from a Hugging Face data set folder, or from one file; nothing is downloaded."""
    from components.tasks.importing import Columns, import_folder

    named = {"instruction": instruction_column, "input": input_column, "output": output_column, "image": image_column}
    columns = Columns(instruction, {field: column for field, column in named.items() if column})
    header = _header(name, version, owner, licence, description, choices)
    made = import_folder(source, folder or Path(name), header, columns)
    rows = {split: len(part) for split, part in made.splits.items()}
    cut = f"; {' and '.join(made.cut)} will be cut from train" if made.cut else ""
    text = f"{made.task.label} in {made.path}: {', '.join(f'{n} {split} rows' for split, n in rows.items())}{cut}"
    value = {"folder": str(made.path), "task": made.task.label, "rows": rows, "cut": list(made.cut)}
    emit(value, as_json=as_json, text=f"{text}\nLook at its task.yaml, then `lcia plan {made.path}`")


def _header(name: str, version: str, owner: str, licence: str, description: str, choices: list[str]) -> dict[str, Any]:
    told = {"name": name, "version": version, "owner": owner, "description": description, "licence": licence}
    return {**told, **({"choices": choices} if choices else {})}
