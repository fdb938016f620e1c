"""Verbs about trials of candidates on the traffic of gateways."""

from typing import Annotated

import typer

from components.errors import LciaError
from lcia.cli import completion
from lcia.cli.app import DO, LOOK, As, Config, Json, Pending, Reason, emit, group, perform, verb
from lcia.cli.text import trials as texts

trial = group("trial", "List trials of candidates on live traffic; start, approve and stop trials.", lists=True)

TrialId = Annotated[
    int, typer.Argument(metavar="ID", help="Number of the trial in `lcia trial`.", autocompletion=completion.trials)
]


class ShareUnclear(LciaError):
    """The options do not say which kind of trial, or say two."""


@trial.callback()
def all_trials(
    context: typer.Context,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="N", help="Only trials of this version.", autocompletion=completion.versions),
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List trials with their counts, and how near each rule is to stopping them."""
    if context.invoked_subcommand is None:
        value = perform("trials", None, config, version=version)
        emit(value, as_json=as_json, text=texts.trials)


@verb(
    DO,
    'lcia trial start 4 --shadow --reason "how does it do on live requests"',
    'lcia trial start 4 --canary 0.05 --reason "two weeks of shadow agreed"',
    on=trial,
    name="start",
)
def start(
    version: Pending,
    reason: Reason,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Answer copies of requests; nobody gets these answers.")
    ] = False,
    share: Annotated[
        float, typer.Option("--share", metavar="SHARE", help="Share of requests that a shadow answers too.")
    ] = 1.0,
    canary: Annotated[
        float | None,
        typer.Option("--canary", metavar="SHARE", help="Answer this share of callers, once somebody else approves it."),
    ] = None,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Try a candidate on the requests that gateways get, next to the champion.

    A trial ends by itself if the candidate is worse than `gateway.trial` tolerates. Exits 3 while a canary waits for
    its approval.
    """
    if shadow == (canary is not None):
        raise ShareUnclear("give either --shadow or --canary SHARE, such as --canary 0.05")
    kind, part = ("shadow", share) if canary is None else ("canary", canary)
    value = perform("start-trial", name, config, version=version, kind=kind, share=part, reason=reason)
    emit(value, as_json=as_json, text=texts.started)
    if value["exit_code"]:
        raise typer.Exit(value["exit_code"])


@verb(DO, 'lcia trial approve 2 --reason "shadow agreed on 98 %"', on=trial, name="approve")
def approve(
    number: TrialId,
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Approve a canary, which begins at once. Whoever asked for it or brought in the task can't."""
    value = perform("approve-trial", name, config, trial=number, reason=reason)
    emit(value, as_json=as_json, text=texts.started)


@verb(DO, 'lcia trial stop 2 --reason "seen enough"', on=trial, name="stop")
def stop(
    number: TrialId,
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """End a trial at once: every caller gets the champion again. Its record joins the candidate's evidence."""
    value = perform("stop-trial", name, config, trial=number, reason=reason)
    emit(value, as_json=as_json, text=texts.stopped)


@verb(LOOK, "lcia trial answers 2 --as ops", on=trial, name="answers")
def answers(
    number: TrialId,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show requests that candidate and champion answered differently. The log records who looked.

    Gateways send them only with `gateway.keep: masked`, and they are deleted after `gateway.keep_days`.
    """
    value = perform("trial-answers", name, config, trial=number)
    emit(value, as_json=as_json, text=texts.answers, as_is=("champion", "candidate"))
