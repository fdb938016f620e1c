"""Verbs that look after the installation: checks, settings, MLflow brought up to date, leases."""

from typing import Annotated

import typer

from components.settings import reference
from lcia.cli.app import (
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
        from lcia.doctor import checks as examination

        found = examination.examine(examination.Patient(home, file, settings), quick=quick)
    value = examination.report(found)
    emit(value, as_json=as_json, text=examination.words)
    if not value["ok"]:
        raise typer.Exit(1)


@verb(DO, "lcia sync", "lcia sync --as ops --json")
def sync(name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Tell MLflow what it does not know yet, and mend what somebody changed in it; 1 where something stays wrong."""
    from lcia.operations import registry

    with quiet_stdout(as_json=as_json):
        value = perform("sync", name, config)
    emit(value, as_json=as_json, text=registry.words)
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


@verb(LOOK, "lcia settings", "lcia settings tuning.ema", name="settings")
def explain(
    prefix: Annotated[str, typer.Argument(metavar="[KEY]", help="Only keys that begin so, such as tuning.ema.")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page of the documentation.")] = False,
    as_json: Json = False,
) -> None:
    """Every key of zenml.yaml with its type, default and meaning."""
    found = reference.keys(prefix)
    if not found:
        raise typer.BadParameter(f"no key begins with {prefix!r}; `lcia settings` lists all", param_hint="KEY")
    text = reference.page().rstrip() if markdown else reference.words(found)
    emit({"keys": [key.to_json() for key in found]}, as_json=as_json, text=text)
