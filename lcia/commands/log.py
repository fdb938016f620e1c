"""The log: export it, verify it."""

from pathlib import Path
from typing import Annotated

import typer

from lcia.commands.frame import LOOK, Config, Json, audit, emit, open_place, verb


@verb(LOOK, "lcia audit verify", "lcia audit verify log.jsonl --key audit-key.pub.pem", on=audit, name="verify")
def audit_verify(
    export: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Exported log; default the live one.")] = None,
    key: Annotated[Path | None, typer.Option(help="Public key that the head must be signed with.")] = None,
    head: Annotated[Path | None, typer.Option(help="A head file kept elsewhere; shows truncation.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Check every byte of the log; works offline on an exported file."""
    from lcia import verbs

    found = verbs.audit_verify(open_place(config) if export is None else None, export, key, head)
    emit(found.to_json(), as_json=as_json, text=found.message)
    if not found.ok:
        raise typer.Exit(1)


@verb(LOOK, "lcia audit export log.jsonl", on=audit, name="export")
def audit_export(
    file: Annotated[Path, typer.Argument(help="Where to write the log; its signed head goes beside it.")],
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write the log as JSON Lines with a signed head."""
    from lcia import verbs

    value = verbs.audit_export(open_place(config), file)
    text = f"{value['entries']} entries in {value['file']}, signed head in {value['head_file']}"
    emit(value, as_json=as_json, text=text)
