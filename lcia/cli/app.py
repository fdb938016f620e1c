"""Parts that all verbs share: the app and its groups, the options, opening the state, printing the result.

Modules of verbs are all imported for the help, so each imports what a verb needs when the verb runs.
"""

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

from components.visible import indent
from infra import environment
from infra.environment import found_state
from lcia.cli import completion, terminal
from lcia.cli.text import tasks

if TYPE_CHECKING:
    from components.settings import Settings
    from components.storage.database import Database
    from lcia.instance import Instance

LOOK, DO, GROUPS = "Look", "Do", "Groups"
Function = Callable[..., Any]


@dataclass
class Session:
    """State that the running command has opened; a message about its failure refers to it."""

    home: Path | None = None
    db: "Database | None" = None
    entries: int = 0
    """Entries of the log when it was opened."""


SESSION = Session()


class Verbs(TyperGroup):
    """Help that lists verbs under Look, Do and Groups, each with its whole first line; typer cuts it short."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer names their types privately
        """Write one section for each of Look, Do and Groups, in order of first appearance."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            panel = getattr(command, "rich_help_panel", None)
            summary = (command.help or "").partition("\n")[0]
            rows.setdefault(panel if isinstance(panel, str) else "Commands", []).append((name, summary))
        for panel, verbs in rows.items():
            with formatter.section(panel):
                formatter.write_dl(verbs)


app = typer.Typer(
    name="lcia",
    cls=Verbs,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    help="""Teach one language model new tasks without forgetting the earlier ones.

    Each task is learnt as a small adapter; the result is a new version, the candidate. A gate tests it, then people
    approve or reject it. The approved one is the champion, which answers. A signed log records every decision.

    Verbs under Look show something, verbs under Do change something; a group such as `audit` has verbs of
    both kinds. They work on the state in .lcia beside zenml.yaml, or in the folder LCIA_HOME; with LCIA_SERVER and
    LCIA_TOKEN set, on a server.

    Start with `lcia demo`. `lcia VERB --help` explains a verb, with examples.
    """,
)


def group(name: str, summary: str, *, lists: bool = False) -> typer.Typer:
    """Add a group of verbs, such as `lcia keys`; with `lists` its callback runs when no verb is named."""
    verbs = typer.Typer(
        cls=Verbs, rich_markup_mode=None, help=summary, no_args_is_help=not lists, invoke_without_command=lists
    )
    app.add_typer(verbs, name=name, rich_help_panel=GROUPS)
    return verbs


audit_verbs = group("audit", "Show, export, verify and prove the log.")


def verb(panel: str, *examples: str, on: typer.Typer = app, name: str | None = None) -> Callable[[Function], Function]:
    """Add a verb to a group of the help; `examples` are command lines, which end its own help."""
    lines = "\n".join(f"  {example}" for example in examples)
    return on.command(name, rich_help_panel=panel, epilog=f"Examples:\n\n\b\n{lines}")


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
All = Annotated[bool, typer.Option("--all", help="Print all rows, not only the newest.")]
Set = Annotated[
    list[str],
    typer.Option("--set", metavar="A.B=C", help="Override a key of zenml.yaml (refused by a server); repeatable."),
]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file; default zenml.yaml.", metavar="FILE")]
As = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="NAME", help="Act under this name (refused by a server); the log records it as asserted."
    ),
]
Version = Annotated[
    str | None,
    typer.Option(
        "--version",
        metavar="N",
        help="Number or digest of a version; default the champion.",
        autocompletion=completion.versions,
    ),
]
FallbackOption = Annotated[
    str | None,
    typer.Option(
        "--fallback",
        metavar="answer|ask|base",
        help="Where two tasks are about as likely: the nearer answers, you are asked which, or the base model answers.",
    ),
]
Number = Annotated[
    str, typer.Argument(metavar="N", help="Number or digest of a version.", autocompletion=completion.versions)
]
Pending = Annotated[
    str, typer.Argument(metavar="N", help="Number or digest of the candidate.", autocompletion=completion.pending)
]
Maybe = Annotated[
    str | None,
    typer.Argument(
        metavar="N", help="Number or digest of a version; default the champion.", autocompletion=completion.versions
    ),
]
Item = Annotated[
    int,
    typer.Argument(
        metavar="ITEM", help="Number of the task, as `lcia status` shows it.", autocompletion=completion.items
    ),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded in the log.")]


def read_settings(
    config: Path | None, overrides: list[str] | None, *, touch: bool = True
) -> tuple[Path, Path | None, "Settings"]:
    """State folder, settings file and settings; sets the environment before anything heavy is imported.

    Without `touch` a missing state folder is not made.
    """
    file, home = found_state(config)
    SESSION.home, SESSION.db = home, None
    if touch or home.is_dir():
        environment.prepare(home)
    from components.settings import load_settings

    settings = load_settings(file, overrides or (), home_folder=home)
    if settings.base_model.name.startswith("embedded:") or Path(settings.base_model.name).expanduser().is_dir():
        environment.stay_offline()
    if settings.zenml:
        from infra.runs import check_options

        check_options(settings.zenml)
    return home, file, settings


def open_instance(config: Path | None = None, overrides: list[str] | None = None) -> "Instance":
    """Open the state that the settings name; it is made if it does not exist yet."""
    home, _, settings = read_settings(config, overrides)
    from components.audit import log
    from lcia.instance import Instance

    instance = Instance.open(home, settings)
    with instance.db.read() as connection:
        SESSION.db, SESSION.entries = instance.db, log.count(connection)
    policy_keys = [
        key for key in [*(overrides or ()), *os.environ] if key.lower().startswith(("policy.", "lcia__policy__"))
    ]
    if instance.server_policy is not None and policy_keys:
        from components.promotion.policy import PolicyRefused

        raise PolicyRefused(
            f"{policy_keys[0].partition('=')[0]} would change the policy, which is the server's own (policy "
            f"{instance.server_policy}); leave it out, or propose the change: `lcia policy propose`"
        )
    return instance


def perform(
    operation: str,
    name: str | None = None,
    config: Path | None = None,
    overrides: list[str] | None = None,
    **params: Any,  # noqa: ANN401 - checked against the operation's params
) -> Any:  # noqa: ANN401 - any JSON value
    """Do an operation here, or on the server that LCIA_SERVER names; the same JSON either way.

    Raises:
        LciaError: it was refused; here and on a server the message and exit code are the same.
    """
    if on_server():
        from lcia import client

        return client.perform(operation, params, name, overrides)
    instance = open_instance(config, overrides)
    from lcia.instance import actor
    from lcia.operations.table import OPERATIONS

    action = OPERATIONS[operation]
    return action.run(instance, actor(name), action.check(params))


def on_server() -> bool:
    """True if verbs go to a server instead of a state of this machine."""
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
    """Print a text, or with --json the value as one JSON object.

    A text that shows parts of the value must be a function of it: it gets the value with line breaks and hidden
    characters spelt out, so that foreign words can't forge a line. Parts under the keys `as_is` keep their line breaks;
    the function shows them in lines of their own or as Python writes them.
    """
    if as_json:
        print(terminal.json_text(json.dumps(value, ensure_ascii=False, default=str), json.dumps(value, default=str)))
    else:
        print(text if isinstance(text, str) else text(terminal.fields_visible(value, as_is)))


@contextlib.contextmanager
def quiet_stdout(*, as_json: bool) -> Iterator[None]:
    """Send everything but the JSON object to standard error, if `as_json`."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def say(line: str) -> None:
    """Print progress or a remark to standard error."""
    print(indent(line), file=sys.stderr, flush=True)


def say_power(instance: "Instance") -> None:
    """Print how likely the policy lets a harmless candidate pass, at the present sizes of the lineage's tasks."""
    from lcia.worker.plan import lineage_power

    power = lineage_power(instance)
    if power is not None:
        say(tasks.power(power))
