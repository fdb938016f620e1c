"""What all verbs share: the app and its two groups, the options, opening the state, printing the result."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from components.settings import Settings, load_settings
from components.visible import indented
from infra import environment
from infra.environment import found_state
from infra.runs import check_options
from lcia.cli import completion, terminal
from lcia.cli.text import versions

if TYPE_CHECKING:
    from components.storage.database import Database
    from lcia.instance import Instance

LOOK, DO = "Look", "Do"
Function = Callable[..., Any]


@dataclass
class Session:
    """The state that the command at work has opened, for a message about its failure."""

    home: Path | None = None
    db: "Database | None" = None
    entries: int = 0
    """Of the log, when it was opened."""


SESSION = Session()


class Verbs(TyperGroup):
    """Help that lists the verbs in their two groups, the harmless ones first."""

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # noqa: ANN401 - typer's HelpFormatter
        """One section per group, in order of first appearance."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            panel = getattr(command, "rich_help_panel", None)
            summary = (command.help or "").partition("\n")[0]
            rows.setdefault(panel if isinstance(panel, str) else "Commands", []).append((name, summary))
        for panel, listed in rows.items():
            with formatter.section(panel):
                formatter.write_dl(listed)


app = typer.Typer(
    name="lcia",
    cls=Verbs,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    help="Continual instruction tuning that does not forget: gated, approved, auditable.",
)
audit = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The log: show it, export it, verify it.")
app.add_typer(audit, name="audit", rich_help_panel=LOOK)


def verb(panel: str, *examples: str, on: typer.Typer = app, name: str | None = None) -> Callable[[Function], Function]:
    """Add a verb to a group of the help; `examples` are command lines, which end its own help."""
    lines = "\n".join(f"  {example}" for example in examples)
    return on.command(name, rich_help_panel=panel, epilog=f"Examples:\n\n\b\n{lines}")


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]
All = Annotated[bool, typer.Option("--all", help="Print every line, however many there are.")]
Set = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Override a key of zenml.yaml; repeatable.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file; default zenml.yaml.", metavar="FILE")]
As = Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who acts; recorded as asserted.")]
Version = Annotated[
    str | None,
    typer.Option("--version", metavar="N", help="A version; default the champion.", autocompletion=completion.versions),
]
Number = Annotated[str, typer.Argument(metavar="N", help="Number or digest.", autocompletion=completion.versions)]
Pending = Annotated[
    str, typer.Argument(metavar="N", help="The candidate's number or digest.", autocompletion=completion.pending)
]
Maybe = Annotated[
    str | None,
    typer.Argument(metavar="[N]", help="Version; default the champion.", autocompletion=completion.versions),
]
Item = Annotated[
    int, typer.Argument(metavar="ITEM", help="Number of the task in `lcia status`.", autocompletion=completion.items)
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the log.")]


def read_settings(
    config: Path | None, overrides: list[str] | None, *, touch: bool = True
) -> tuple[Path, Path | None, Settings]:
    """State folder, settings file and settings; sets the environment before anything heavy is imported.

    Without `touch` a state folder that is not there is not made.
    """
    file, home = found_state(config)
    SESSION.home, SESSION.db = home, None
    if touch or home.is_dir():
        environment.prepare(home)
    settings = load_settings(file, overrides or (), home_folder=home)
    if settings.base_model.name.startswith("embedded:") or Path(settings.base_model.name).expanduser().is_dir():
        environment.stay_offline()
    if settings.zenml:
        check_options(settings.zenml)
    return home, file, settings


def open_instance(config: Path | None = None, overrides: list[str] | None = None) -> "Instance":
    """Settings and state, which is made where it is not there yet."""
    home, _, settings = read_settings(config, overrides)
    from components.audit import log
    from lcia.instance import Instance

    instance = Instance.open(home, settings)
    with instance.db.read() as connection:
        SESSION.db, SESSION.entries = instance.db, log.count(connection)
    changed = [
        key for key in [*(overrides or ()), *os.environ] if key.lower().startswith(("policy.", "lcia__policy__"))
    ]
    if instance.server_policy is not None and changed:
        from components.promotion.policy import PolicyRefused

        raise PolicyRefused(
            f"{changed[0].partition('=')[0]} would change the policy, which is the server's own (policy "
            f"{instance.server_policy}); leave it out, or propose the change: `lcia policy propose`"
        )
    return instance


def perform(
    operation: str,
    name: str | None = None,
    config: Path | None = None,
    overrides: list[str] | None = None,
    **params: Any,  # noqa: ANN401 - checked by the operation's own shape
) -> Any:  # noqa: ANN401 - any JSON value
    """Do an operation here, or on the server that LCIA_SERVER names; the same JSON either way.

    Raises:
        LciaError: it was refused, here or there, with the same words and exit code.
    """
    if on_server():
        from lcia import client

        return client.perform(operation, params, name, overrides)
    instance = open_instance(config, overrides)
    from lcia.instance import actor
    from lcia.operations.table import OPERATIONS

    found = OPERATIONS[operation]
    return found.run(instance, actor(name), found.check(params))


def on_server() -> bool:
    """Whether verbs go to a server instead of a state of this machine."""
    return bool(os.environ.get("LCIA_SERVER"))


def here_only(verb_name: str) -> None:
    """Refuse a verb that works on this machine's state while LCIA_SERVER names a server."""
    if on_server():
        from lcia.client import NotOnServer

        raise NotOnServer(
            f"`lcia {verb_name}` works on a state of this machine, but LCIA_SERVER is set; unset it here, or run the "
            "verb on the server's machine"
        )


def emit(
    value: Any,  # noqa: ANN401 - any JSON value
    *,
    as_json: bool,
    text: str | Callable[[Any], str],
    as_is: Collection[str] = (),
) -> None:
    """Print the words, or with --json the value as one JSON object.

    A `text` that is made from the value is a function of it: no word of the value ends a line of it then, but those
    under the keys `as_is`, which it shows in lines of their own or as Python writes them.
    """
    if as_json:
        print(terminal.json_text(json.dumps(value, ensure_ascii=False, default=str), json.dumps(value, default=str)))
    else:
        print(text if isinstance(text, str) else text(terminal.fields_visible(value, as_is)))


@contextlib.contextmanager
def quiet_stdout(*, as_json: bool) -> Iterator[None]:
    """With --json nothing but the object goes to standard output."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def say(line: str) -> None:
    """Progress and remarks go to standard error."""
    print(indented(line), file=sys.stderr, flush=True)


def say_power(instance: "Instance") -> None:
    """What the loaded policy does to a harmless candidate at the lineage's present sizes."""
    from lcia.worker.plan import lineage_power

    power = lineage_power(instance)
    if power is not None:
        say(versions.power(power))
