"""Verbs that look after the installation."""

from typing import Annotated

import typer

from lcia.commands.frame import (
    DO,
    LOOK,
    As,
    Config,
    Json,
    Reason,
    Set,
    emit,
    here_only,
    perform,
    quiet_stdout,
    read_settings,
    verb,
)


@verb(LOOK, "lcia doctor", "lcia doctor --quick --json")
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Without loading the model or asking MLflow, ZenML.")] = False,
    overrides: Set = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Check versions, model, store, database, log, MLflow, ZenML, disk, keys, leases; 1 where there is a problem."""
    here_only("doctor")
    with quiet_stdout(as_json=as_json):
        home, file, settings = read_settings(config, overrides, touch=False)
        from lcia import doctor as examination

        found = examination.examine(examination.Patient(home, file, settings), quick=quick)
    value = examination.report(found)
    emit(value, as_json=as_json, text=examination.words)
    if not value["ok"]:
        raise typer.Exit(1)


@verb(DO, "lcia sync", "lcia sync --as ops --json")
def sync(name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Tell MLflow what it does not know yet, and mend what somebody changed in it; 1 where something stays wrong."""
    from lcia import syncing

    with quiet_stdout(as_json=as_json):
        value = perform("sync", name, config)
    emit(value, as_json=as_json, text=syncing.words)
    if not value["ok"]:
        raise typer.Exit(1)


@verb(
    DO,
    'lcia break-lease lineage:assistant --reason "the worker\'s machine is gone"',
    'lcia break-lease lineage:assistant --force --reason "it hangs since noon"',
    name="break-lease",
)
def break_lease(
    lease: Annotated[str, typer.Argument(metavar="LEASE", help="Its name, as `lcia doctor` shows it.")],
    reason: Reason,
    force: Annotated[bool, typer.Option("--force", help="Also from a process that is still at work.")] = False,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Free a lease that a process which is gone still holds; what that process writes later is refused."""
    value = perform("break-lease", name, config, lease=lease, reason=reason, force=force)
    emit(value, as_json=as_json, text=lambda shown: f"{shown['words']}; now it is free for the next one.")
