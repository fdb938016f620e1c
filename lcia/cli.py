"""The command line: verbs to functions, words or JSON out, exit codes 0 ok, 1 error, 2 gate refused, 3 waiting."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from components.errors import LciaError
from components.settings import load_settings
from infra import environment
from infra.stacks import SOURCE_ROOT, check_options
from lcia import words

if TYPE_CHECKING:
    from lcia.workplace import Workplace

LOOK, DO = "Look", "Do"
INTERRUPTED = 130
"""What typer returns after Ctrl-C."""


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
audit = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The log: export it, verify it.")
app.add_typer(audit, name="audit", rich_help_panel=LOOK)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]
Set = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Override a key of zenml.yaml; repeatable.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file; default zenml.yaml.", metavar="FILE")]
As = Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who acts; recorded as asserted.")]
Version = Annotated[str | None, typer.Option("--version", metavar="N", help="A version; default the champion.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the log.")]


def _config(path: Path | None) -> Path | None:
    if path is not None:
        return path
    here = [Path("zenml.yaml"), SOURCE_ROOT / "zenml.yaml"]
    return next((p for p in here if p.exists()), None)


def _open(config: Path | None = None, overrides: list[str] | None = None) -> "Workplace":
    """Settings and state; sets the environment before anything heavy is imported."""
    file = _config(config)
    folder = file.absolute().parent if file else Path.cwd()
    home = Path(os.environ.get("LCIA_HOME") or folder / ".lcia").absolute()
    environment.prepare(home)
    settings = load_settings(file, overrides or (), home_folder=home)
    if settings.base_model.name.startswith("embedded:") or Path(settings.base_model.name).expanduser().is_dir():
        environment.stay_offline()
    if settings.zenml:
        check_options(settings.zenml)
    from lcia.workplace import Workplace

    return Workplace.open(home, settings)


def _emit(value: Any, *, as_json: bool, text: str) -> None:  # noqa: ANN401 - any JSON value
    print(json.dumps(value, ensure_ascii=False, default=str) if as_json else text)


@contextlib.contextmanager
def _quiet_stdout(*, as_json: bool) -> Iterator[None]:
    """With --json nothing but the object goes to standard output."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# -- look -------------------------------------------------------------------------------------------


@app.command(rich_help_panel=LOOK)
def status(as_json: Json = False, config: Config = None) -> None:
    """Champion, queue, candidates and log."""
    from lcia import verbs

    value = verbs.status(_open(config))
    _emit(value, as_json=as_json, text=words.status(value))


@app.command(rich_help_panel=LOOK)
def matrix(version: Version = None, as_json: Json = False, config: Config = None) -> None:
    """The accuracy matrix along the ancestors of a version, with Avg.ACC, New.ACC, BWT and Forgetting."""
    from lcia import verbs

    found = verbs.matrix(_open(config), version)
    _emit(found.to_json(), as_json=as_json, text=words.matrix(found))


@app.command(rich_help_panel=LOOK)
def show(
    version: Annotated[str | None, typer.Argument(metavar="[N]", help="Version; default the champion.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Everything a decision about a version rests on: gate rows, curve, groups, matrix, approvals."""
    from lcia import verbs

    value = verbs.show(_open(config), version)
    _emit(value, as_json=as_json, text=words.show(value))


@app.command(rich_help_panel=LOOK)
def flips(
    version: Annotated[str, typer.Argument(metavar="N", help="Version.")],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page instead.")] = None,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """The test rows of prior tasks that a version changed; who looks is entered in the log."""
    from components.evaluation.reports import flips_html
    from lcia import verbs
    from lcia.workplace import actor

    candidate, found, hidden = verbs.flips(_open(config), version, actor(name))
    if html is not None:
        title = f"Changed predictions of prior tasks in version {candidate.number}"
        html.write_text(flips_html(found, title), encoding="utf-8")
    value = {"version": candidate.number, "flips": [vars(flip) for flip in found], "held_back": hidden}
    _emit(value, as_json=as_json, text=f"written to {html}" if html else words.flips(value))


@app.command(rich_help_panel=LOOK)
def plan(
    package: Annotated[Path, typer.Argument(help="Folder with task.yaml and the rows.")],
    overrides: Set = [],  # noqa: B006 - typer reads it
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Assess a task package: checks, drift, group, cost, and whether its test split is large enough."""
    place = _open(config, overrides)
    from lcia import planning

    with _quiet_stdout(as_json=as_json):
        _say_power(place)
        value = planning.plan(place, package)
    _emit(value, as_json=as_json, text=words.plan(value))
    if value["exit_code"]:
        raise typer.Exit(value["exit_code"])


def _say_power(place: "Workplace") -> None:
    """What the loaded policy does to a harmless candidate at the lineage's present sizes."""
    from lcia.planning import lineage_power

    power = lineage_power(place)
    if power is not None:
        _say(words.power(power))


@app.command(rich_help_panel=LOOK)
def ask(
    instruction: Annotated[str, typer.Argument(help="What to do, as a task's instruction says it.")],
    text: Annotated[str | None, typer.Option("--input", metavar="TEXT", help="What to do it to.")] = None,
    version: Version = None,
    base: Annotated[bool, typer.Option("--base", help="Ask the base model alone.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Answer one instruction by the champion, through the routed adapter."""
    from lcia import verbs

    with _quiet_stdout(as_json=as_json):
        value = verbs.ask(_open(config), instruction, text, version, base=base)
    _emit(value, as_json=as_json, text=words.answer(value))


@app.command(rich_help_panel=LOOK)
def reevaluate(
    version: Annotated[str | None, typer.Argument(metavar="[N]", help="Version; default the champion.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Predict all test rows of a version again and compare with its stored predictions; 1 if more than ties differ."""
    from lcia import verbs

    with _quiet_stdout(as_json=as_json):
        value = verbs.reevaluate(_open(config), version)
    _emit(value, as_json=as_json, text=words.reevaluation(value))
    if not value["ok"]:
        raise typer.Exit(1)


@audit.command("verify")
def audit_verify(
    export: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Exported log; default the live one.")] = None,
    key: Annotated[Path | None, typer.Option(help="Public key that the head must be signed with.")] = None,
    head: Annotated[Path | None, typer.Option(help="A head file kept elsewhere; shows truncation.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Check every byte of the log; works offline on an exported file."""
    from lcia import verbs

    found = verbs.audit_verify(_open(config) if export is None else None, export, key, head)
    _emit(found.to_json(), as_json=as_json, text=found.message)
    if not found.ok:
        raise typer.Exit(1)


@audit.command("export")
def audit_export(
    file: Annotated[Path, typer.Argument(help="Where to write the log; its signed head goes beside it.")],
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write the log as JSON Lines with a signed head."""
    from lcia import verbs

    value = verbs.audit_export(_open(config), file)
    text = f"{value['entries']} entries in {value['file']}, signed head in {value['head_file']}"
    _emit(value, as_json=as_json, text=text)


@app.command(rich_help_panel=LOOK)
def export(
    folder: Annotated[Path, typer.Argument(help="A new folder to write to.")],
    version: Version = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write a version as plain PEFT folders with its router and manifest, and say how vLLM serves it."""
    from lcia import verbs

    with _quiet_stdout(as_json=as_json):
        value = verbs.export(_open(config), version, folder)
    _emit(value, as_json=as_json, text=words.exported(value))


# -- do ---------------------------------------------------------------------------------------------


@app.command(rich_help_panel=DO)
def submit(
    package: Annotated[Path, typer.Argument(help="Folder with task.yaml and the rows.")],
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Put a task package into the queue."""
    from lcia import verbs
    from lcia.workplace import actor

    item = verbs.submit(_open(config), package, actor(name))
    _emit(item.to_json() | {"known": item.known}, as_json=as_json, text=words.submitted(item))


@app.command(rich_help_panel=DO)
def run(
    package: Annotated[Path, typer.Argument(help="Folder with task.yaml and the rows.")],
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Submit a task package and work on it until people or the gate have to decide."""
    from lcia import verbs
    from lcia.workplace import actor

    place, who = _open(config, overrides), actor(name)
    item = verbs.submit(place, package, who)
    if item.known:
        _say(words.submitted(item))
    with _quiet_stdout(as_json=as_json):
        _say_power(place)
        _work(place, name, item.id)
    _end([item.id], place, as_json=as_json)


@app.command(rich_help_panel=DO)
def work(
    once: Annotated[bool, typer.Option("--once/--watch", help="Stop when nothing is left, or keep watching.")] = True,
    every: Annotated[float, typer.Option(help="Seconds between two looks with --watch.")] = 10.0,
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Bring every open task of the queue as far as it can go."""
    import time

    place = _open(config, overrides)
    with _quiet_stdout(as_json=as_json):
        _say_power(place)
        touched = _work(place, name, None)
        while not once:
            time.sleep(every)
            _work(place, name, None)
    if not touched and not as_json:
        print("Nothing to do: the queue holds no open task.")
        return
    _end(touched, place, as_json=as_json)


def _work(place: "Workplace", name: str | None, only: int | None) -> list[int]:
    from lcia import worker
    from lcia.workplace import actor

    return [item.id for item in worker.work(place, actor(name), _say, only)]


def _end(items: list[int], place: "Workplace", *, as_json: bool) -> None:
    from components.tasks import queue
    from lcia import verbs

    with place.db.read() as connection:
        found = [queue.item(connection, i) for i in items]
    told = verbs.outcomes(place, found)
    _emit(told if len(told) != 1 else told[0], as_json=as_json, text=words.outcomes(told))
    code = max((one["exit_code"] for one in told), default=0)
    if code:
        raise typer.Exit(code)


@app.command(rich_help_panel=DO)
def approve(
    version: Annotated[str, typer.Argument(metavar="N", help="The candidate's number or digest.")],
    reason: Reason = "approved",
    overrides: Set = [],  # noqa: B006 - typer reads it
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Say yes to a candidate; with the last yes that policy asks for it becomes the champion."""
    from lcia import verbs
    from lcia.workplace import actor

    with _quiet_stdout(as_json=as_json):
        candidate, made = verbs.approve(_open(config, overrides), version, actor(name), reason)
    value = {"version": candidate.number, "digest": candidate.digest, "state": candidate.state}
    value["epoch"] = made.epoch if made else None
    _emit(value, as_json=as_json, text=words.approved(candidate, made))
    if made is None:
        raise typer.Exit(3)


@app.command(rich_help_panel=DO)
def reject(
    version: Annotated[str, typer.Argument(metavar="N", help="The candidate's number or digest.")],
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Say no to a candidate; it ends."""
    from lcia import verbs
    from lcia.workplace import actor

    candidate = verbs.reject(_open(config), version, actor(name), reason)
    value = {"version": candidate.number, "digest": candidate.digest, "state": candidate.state}
    _emit(value, as_json=as_json, text=f"Version {candidate.number} is rejected.")


@app.command(rich_help_panel=DO)
def rollback(
    version: Annotated[str, typer.Argument(metavar="N", help="An earlier champion.")],
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Make an earlier champion the champion again."""
    from lcia import verbs
    from lcia.workplace import actor

    with _quiet_stdout(as_json=as_json):
        made = verbs.rollback(_open(config), version, actor(name), reason)
    text = f"Version {version.removeprefix('v')} is the champion again (epoch {made.epoch})."
    _emit(made.to_json(), as_json=as_json, text=text)


Item = Annotated[int, typer.Argument(metavar="ITEM", help="Number of the task in `lcia status`.")]


@app.command(rich_help_panel=DO)
def retry(
    item: Item,
    force: Annotated[bool, typer.Option("--force", help="Learn it although the champion knows it.")] = False,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Put a task that failed, was refused or rejected back into the queue."""
    from components.tasks import queue
    from lcia.workplace import actor

    with _open(config).db.begin() as connection:
        if force:
            why, answers = "to be learnt although it is known", {"forced": True}
            again = queue.answer(connection, item, "nothing_to_learn", answers, actor=actor(name), reason=why)
        else:
            again = queue.move(connection, None, item, "submitted", "tried again", actor=actor(name))
    _emit(again.to_json(), as_json=as_json, text=words.queued(again))


@app.command(rich_help_panel=DO)
def release(item: Item, reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Let a task go on that is held because it is unlike everything seen."""
    _answer(item, {"released": True}, reason, name, as_json=as_json, config=config)


@app.command(rich_help_panel=DO)
def regroup(
    item: Item,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="A group id such as g1, or `new`.")],
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Say which group learns a task that is held between two."""
    _answer(item, {"placed": group}, reason, name, as_json=as_json, config=config)


@app.command(rich_help_panel=DO)
def cancel(item: Item, reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Take a task out of the queue; its package stays where it was submitted from."""
    from components.tasks import queue
    from lcia.workplace import actor

    with _open(config).db.begin() as connection:
        gone = queue.move(connection, None, item, "cancelled", reason, actor=actor(name))
    _emit(gone.to_json(), as_json=as_json, text=f"{gone.name}@{gone.version} is cancelled.")


def _answer(
    item: int, answers: dict[str, Any], reason: str, name: str | None, *, as_json: bool, config: Path | None
) -> None:
    from components.tasks import queue
    from lcia.workplace import actor

    place = _open(config)
    with place.db.begin() as connection:
        again = queue.answer(connection, item, "held", answers, actor=actor(name), reason=reason)
    _emit(again.to_json(), as_json=as_json, text=words.queued(again))


@app.command(rich_help_panel=DO)
def demo() -> None:
    """Three real tasks through the whole loop, with two demo identities; ends with what was measured."""
    from lcia import demo as demonstration

    demonstration.run(_open())


def main() -> None:
    """Entry point of `lcia`; every error is one message and an exit code."""
    try:
        code = app(prog_name="lcia", standalone_mode=False)
    except LciaError as error:
        print(f"lcia: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        sys.exit(error.exit_code)
    except TyperException as error:
        error.show()  # type: ignore[attr-defined] # typer's parser raises only such that show themselves
        sys.exit(1)
    if code == INTERRUPTED:
        print("\nlcia: interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
