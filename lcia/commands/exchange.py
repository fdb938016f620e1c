"""Verbs that bring packages in and versions out."""

from pathlib import Path
from typing import Annotated

import typer

from lcia import words
from lcia.commands.frame import DO, Config, Json, Version, emit, here_only, open_place, quiet_stdout, verb


@verb(DO, "lcia export served", "lcia export served --version 3")
def export(
    folder: Annotated[Path, typer.Argument(help="A new folder to write to.")],
    version: Version = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write a version as plain PEFT folders with its router and manifest, and say how vLLM serves it."""
    here_only("export")
    from lcia import answering

    with quiet_stdout(as_json=as_json):
        value = answering.export(open_place(config), version, folder)
    emit(value, as_json=as_json, text=words.exported)
