"""Verbs that look after the installation: its checks, settings, leases, and MLflow."""

from typing import Annotated

import typer

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
from lcia.cli.text import doctor as texts


@verb(LOOK, "lcia doctor", "lcia doctor --quick --json")
def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Don't load the model, and don't ask MLflow and ZenML.")
    ] = False,
    overrides: Set = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Check the installation and its state. Exits 1 if there is a problem.

    It checks libraries, settings, disk, keys, database, log, leases, store, model, MLflow and ZenML, and changes none
    of them.
    """
    here_only("doctor")
    with quiet_stdout(as_json=as_json):
        home, file, settings = read_settings(config, overrides, touch=False)
        from lcia.doctor.checks import examine, report
        from lcia.doctor.findings import Installation

        value = report(examine(Installation(home, file, settings), quick=quick))
    emit(value, as_json=as_json, text=texts.findings)
    if not value["ok"]:
        raise typer.Exit(1)


@verb(DO, "lcia sync", "lcia sync --as ops --json")
def sync(name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Push pending changes to MLflow and undo manual edits.

    Exits 1 if a change is still unsent, an edit could not be undone, or MLflow does not serve the champion.
    """
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
    lease: Annotated[str, typer.Argument(metavar="LEASE", help="Name of the lease, as `lcia doctor` shows it.")],
    reason: Reason,
    force: Annotated[bool, typer.Option("--force", help="Take it even from a process that is still at work.")] = False,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Free a lease whose process is gone. Anything that process writes later is refused."""
    value = perform("break-lease", name, config, lease=lease, reason=reason, force=force)
    emit(value, as_json=as_json, text=lambda fields: f"{fields['words']}; it is free now.")


@verb(LOOK, "lcia settings", "lcia settings tuning.ema", name="settings")
def explain(
    prefix: Annotated[str, typer.Argument(metavar="KEY", help="Only keys that begin so, such as tuning.ema.")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print them as the page docs/settings.md.")] = False,
    as_json: Json = False,
) -> None:
    """List the keys of zenml.yaml with type, default and meaning."""
    from components.settings import reference

    keys = reference.keys(prefix)
    if not keys:
        raise typer.BadParameter(f"no key begins with {prefix!r}; `lcia settings` lists all", param_hint="KEY")
    text = reference.page().rstrip() if markdown else reference.words(keys)
    emit({"keys": [key.to_json() for key in keys]}, as_json=as_json, text=text)
