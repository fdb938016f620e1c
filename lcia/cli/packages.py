"""Verbs that make task packages: a skeleton, or a package from an existing data set."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lcia.cli.app import DO, Json, emit, read_settings, verb
from lcia.cli.text import tasks

NAME = typer.Option(metavar="NAME", help="Name of the task: lower-case letters, digits, - and _.")
Version = Annotated[str, typer.Option("--version", metavar="VERSION", help="Version of the task.")]
Owner = Annotated[str, typer.Option(metavar="SITE", help="The site that owns the rows.")]
Licence = Annotated[
    str, typer.Option(metavar="LICENCE", help="Licence of the rows; an SPDX identifier if there is one.")
]
Description = Annotated[str, typer.Option(metavar="TEXT", help="Description of the task, for people.")]
Choices = Annotated[list[str], typer.Option("--choice", metavar="TEXT", help="An allowed answer; repeatable.")]


@verb(DO, "lcia new city_names --owner north --licence CC-BY-4.0", "lcia new urgency --choice low --choice high")
def new(
    folder: Annotated[Path, typer.Argument(metavar="NAME", help="Name of the task, and of the folder to make.")],
    owner: Owner = "site",
    licence: Licence = "LicenseRef-own",
    description: Description = "Say here what the task is.",
    choices: Choices = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
) -> None:
    """Write the skeleton of a task package, with example rows to replace."""
    from components.tasks.importing import skeleton

    package = skeleton(folder, _header(folder.name, "1", owner, licence, description, choices))
    text = f"{package.task.label} in {folder}: replace the rows of its three files, then `lcia plan {folder}`"
    emit({"folder": str(folder), "task": package.task.label}, as_json=as_json, text=text)


@verb(
    DO,
    "lcia import reviews --name review_mood --instruction 'Positive or negative?' --input text --output label",
    "lcia import maths --name school --instruction-column question --output answer --split train=data/train.jsonl",
    "lcia import chats.parquet --name support --owner north",
    name="import",
)
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="Folder or file of a data set: JSON Lines, JSON, CSV, Parquet, Arrow; also .gz."
        ),
    ],
    name: Annotated[str, NAME],
    folder: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Folder to write; default the task's name.")
    ] = None,
    instruction: Annotated[str | None, typer.Option(metavar="TEXT", help="One instruction for all rows.")] = None,
    instruction_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with the instruction.")
    ] = None,
    input_column: Annotated[
        str | None, typer.Option("--input", metavar="COLUMN", help="Column with the input.")
    ] = None,
    output_column: Annotated[
        str | None, typer.Option("--output", metavar="COLUMN", help="Column with the answer.")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option("--image", metavar="COLUMN", help="Column with the image or images.")
    ] = None,
    messages_column: Annotated[
        str | None, typer.Option("--messages", metavar="COLUMN", help="Column with a list of messages.")
    ] = None,
    choices_columns: Annotated[
        str | None,
        typer.Option(
            "--choices", metavar="COLUMNS", help="Column with each row's options, or one column per option: A,B,C,D."
        ),
    ] = None,
    answers: Annotated[
        str | None,
        typer.Option(
            metavar="WAY",
            help="How answers name an option: label, text, letter, or its place from 0 or 1; default: what fits.",
        ),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="Columns to ignore although they may change the meaning of a row: a,b."),
    ] = None,
    split: Annotated[
        list[str],
        typer.Option(
            "--split", metavar="SPLIT=FILE", help="Files of a split: a path, a pattern, or `none`; repeatable."
        ),
    ] = [],  # noqa: B006 - typer reads it
    header: Annotated[
        str | None, typer.Option("--header", metavar="NAMES", help="Column names of CSV files without a header: a,b,c.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair texts that were decoded with the wrong code page.")
    ] = False,
    set_aside: Annotated[
        float,
        typer.Option(
            "--set-aside", min=0, max=1, metavar="SHARE", help="Leave faulty rows out, up to this share; else fail."
        ),
    ] = 0.01,
    version: Version = "1",
    owner: Owner = "site",
    licence: Licence = "LicenseRef-own",
    description: Description = "Imported; say here what the task is.",
    choices: Choices = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
) -> None:
    """Make a task package from a data set's folder or file. Nothing is downloaded.

    Files are found by their names: train, validation, test. If several fit, choose with --split. Rows with instruction
    and output, messages, ShareGPT conversations, or prompt and completion need no column options.
    """
    from components.tasks.columns import Columns
    from components.tasks.conversion import Reading
    from components.tasks.isolation import import_data

    if instruction is not None and instruction_column:
        raise typer.BadParameter(
            "seen both, expected --instruction or --instruction-column", param_hint="--instruction"
        )
    if instruction is not None and not instruction.strip():
        raise typer.BadParameter(
            "seen an empty text, expected what is to be done, in words", param_hint="--instruction"
        )
    columns_of = {
        "instruction": instruction_column,
        "input": input_column,
        "output": output_column,
        "image": image_column,
    }
    columns = Columns(
        instruction,
        {field: column for field, column in columns_of.items() if column},
        messages_column,
        _names(choices_columns),
        _way(answers),
        _names(ignore),
    )
    reading = Reading(_splits(split), _names(header), repair, set_aside)
    task = _header(name, version, owner, licence, description, choices)
    budget = read_settings(None, None, touch=False)[2].packages
    value = import_data(source, folder or Path(name), task, columns, reading, budget)
    emit(value, as_json=as_json, text=tasks.package)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _way(text: str | None) -> Any:  # noqa: ANN401 - one of `options.WAYS`
    from components.tasks.options import WAYS

    if text is not None and text not in WAYS:
        raise typer.BadParameter(f"seen {text!r}, expected one of {', '.join(WAYS)}", param_hint="--answers")
    return text


def _splits(options: list[str]) -> dict[str, str]:
    """`--split test=FILE` as a mapping."""
    pairs = [text.partition("=") for text in options]
    if wrong := next(
        (text for text, (split, _, file) in zip(options, pairs, strict=True) if not split or not file), None
    ):
        raise typer.BadParameter(
            f"seen {wrong!r}, expected SPLIT=FILE such as test=data/test.jsonl", param_hint="--split"
        )
    splits = {split: file for split, _, file in pairs}
    if len(splits) < len(pairs):
        rule = "each split once; a pattern such as data/train-*.parquet takes several files"
        raise typer.BadParameter(f"seen a split twice, expected {rule}", param_hint="--split")
    return splits


def _header(name: str, version: str, owner: str, licence: str, description: str, choices: list[str]) -> dict[str, Any]:
    header = {"name": name, "version": version, "owner": owner, "description": description, "licence": licence}
    return {**header, **({"choices": choices} if choices else {})}
