"""Verbs that look after the installation."""

from typing import Annotated

import typer

from lcia.commands.frame import LOOK, Config, Json, Set, emit, quiet_stdout, read_settings, verb


@verb(LOOK, "lcia doctor", "lcia doctor --quick --json")
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Without loading the model or asking MLflow, ZenML.")] = False,
    overrides: Set = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Check versions, model, store, database, log, MLflow, ZenML, disk, keys, leases; 1 where there is a problem."""
    with quiet_stdout(as_json=as_json):
        home, file, settings = read_settings(config, overrides, touch=False)
        from lcia import doctor as examination

        found = examination.examine(examination.Patient(home, file, settings), quick=quick)
    value = examination.report(found)
    emit(value, as_json=as_json, text=examination.words(value))
    if not value["ok"]:
        raise typer.Exit(1)
