"""The verb that explains zenml.yaml."""

from typing import Annotated

import typer

from lcia import settings_page
from lcia.commands.frame import LOOK, Json, emit, verb


@verb(LOOK, "lcia settings", "lcia settings tuning.ema", name="settings")
def explain(
    prefix: Annotated[str, typer.Argument(metavar="[KEY]", help="Only keys that begin so, such as tuning.ema.")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page of the documentation.")] = False,
    as_json: Json = False,
) -> None:
    """Every key of zenml.yaml with its type, default and meaning."""
    found = settings_page.keys(prefix)
    if not found:
        raise typer.BadParameter(f"no key begins with {prefix!r}; `lcia settings` lists all", param_hint="KEY")
    text = settings_page.page().rstrip() if markdown else settings_page.words(found)
    emit({"keys": [key.to_json() for key in found]}, as_json=as_json, text=text)
