"""Verbs of a server: run it, and administer people, tokens and policy."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
import yaml

from components.errors import LciaError
from components.roles import Role
from lcia.cli.app import (
    DO,
    As,
    Config,
    Json,
    Reason,
    Set,
    emit,
    group,
    here_only,
    open_instance,
    perform,
    read_settings,
    verb,
)
from lcia.cli.text import admin

if TYPE_CHECKING:
    from lcia.instance import Instance

people = group("people", "List who may sign in, with their roles; add people and change roles.", lists=True)
tokens = group("tokens", "List the API tokens of people and programs; create and revoke tokens.", lists=True)
policy = group("policy", "Show the policy in force; propose changes and answer proposals.", lists=True)

PersonName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a person or program, as the log writes it.")]
RoleName = Annotated[str, typer.Argument(metavar="ROLE", help=", ".join(get_args(Role)))]
Site = Annotated[str, typer.Option("--site", metavar="SITE", help="Site whose tasks the role covers; default all.")]
Why = Annotated[
    str,
    typer.Option(
        "--reason",
        metavar="TEXT",
        help="Why; required if another admin has to accept it, so not on the server's own machine or while there has "
        "only ever been one admin (7 days at most).",
    ),
]
Proposal = Annotated[int, typer.Argument(metavar="N", help="Number of the proposal.")]


class ChangeUnreadable(LciaError):
    """A file of policy changes that can't be read or is no mapping."""


@verb(DO, "lcia serve", "lcia serve --bootstrap ada")
def serve(
    first: Annotated[
        str | None, typer.Option("--bootstrap", metavar="NAME", help="Make NAME the first admin and print their token.")
    ] = None,
    name: As = None,
    config: Config = None,
) -> None:
    """Run the service: an HTTP API and a console, for people who sign in and programs with tokens."""
    here_only("serve")
    instance = open_instance(config)
    from lcia import server
    from lcia.instance import actor

    if first is not None:
        print(admin.bootstrap(first, server.bootstrap(instance, first, actor(name))), flush=True)
    server.serve(instance, say=lambda line: print(line, flush=True))


@verb(DO, "lcia gateway", "lcia gateway --set gateway.port=9000", "lcia gateway --vllm-command")
def gateway(
    vllm_command: Annotated[
        bool, typer.Option("--vllm-command", help="Print the command that starts vLLM for this gateway, and exit.")
    ] = False,
    overrides: Set = [],  # noqa: B006
    config: Config = None,
) -> None:
    """Run the gateway: applications ask the champion there, as they would ask OpenAI's API.

    It follows every decision without a restart: those of the server that LCIA_SERVER names, or of the state here.
    """
    _, _, settings = read_settings(config, overrides)
    from lcia.gateway import server

    def state() -> "Instance":
        return open_instance(config, overrides)

    if vllm_command:
        print(server.vllm_command(settings, state, os.environ))
    else:
        server.serve(settings, state, os.environ, say=lambda line: print(line, flush=True))


@people.callback()
def all_people(context: typer.Context, as_json: Json = False, config: Config = None) -> None:
    """List who may sign in, with their roles."""
    if context.invoked_subcommand is None:
        value = perform("people", None, config)
        emit(value, as_json=as_json, text=admin.people)


@verb(DO, "lcia people add bob --subject 'https://idp.example.org|bob'", on=people, name="add")
def add_person(
    person: PersonName,
    subject: Annotated[
        str | None, typer.Option(metavar="SUBJECT", help="Their account, `issuer|subject`, at the identity provider.")
    ] = None,
    reason: Why = "",
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Add a person or program, or connect a person with their account at the identity provider.

    Another admin has to accept the account of somebody who decides, administers or has an account already, with the
    exceptions of `lcia people grant`.
    """
    value = perform("add-person", name, config, person=person, subject=subject, reason=reason)
    emit(value, as_json=as_json, text=admin.person)


@verb(
    DO,
    "lcia people grant bob submitter --site north",
    "lcia people grant gateway-1 serve",
    "lcia people grant 'https://idp.example.org|bob' approver --reason \"knows the data\"",
    on=people,
    name="grant",
)
def grant(
    person: Annotated[str, typer.Argument(metavar="WHO", help="Their name, or `issuer|subject` of their account.")],
    role: RoleName,
    site: Site = "*",
    reason: Why = "",
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Give a role at a site.

    Another admin has to accept a role that decides or administers, except on the server's own machine or while there
    has only ever been one admin (7 days at most).
    """
    value = perform("grant", name, config, person=person, role=role, site=site, reason=reason)
    emit(value, as_json=as_json, text=admin.person)


@verb(DO, 'lcia people accept 3 --reason "agreed in the meeting"', on=people, name="accept")
def accept_appointment(
    proposal: Proposal, reason: Reason, name: As = None, as_json: Json = False, config: Config = None
) -> None:
    """Accept a role or account that another admin proposed."""
    value = perform("answer-grant", name, config, proposal=proposal, accept=True, reason=reason)
    emit(value, as_json=as_json, text=admin.appointment)


@verb(DO, 'lcia people refuse 3 --reason "nobody knows him"', on=people, name="refuse")
def refuse_appointment(
    proposal: Proposal, reason: Reason, name: As = None, as_json: Json = False, config: Config = None
) -> None:
    """Refuse a role or account that was proposed."""
    value = perform("answer-grant", name, config, proposal=proposal, accept=False, reason=reason)
    emit(value, as_json=as_json, text=admin.appointment)


@verb(DO, "lcia people ungrant bob approver", on=people, name="ungrant")
def ungrant(
    person: PersonName, role: RoleName, site: Site = "*", name: As = None, as_json: Json = False, config: Config = None
) -> None:
    """Take a role back."""
    value = perform("grant", name, config, person=person, role=role, site=site, take_back=True)
    emit(value, as_json=as_json, text=admin.person)


@verb(DO, 'lcia people disable bob --reason "left the company"', on=people, name="disable")
def disable(person: PersonName, reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Lock a person or program out. Their earlier decisions stand."""
    value = perform("disable-person", name, config, person=person, reason=reason)
    emit(value, as_json=as_json, text=admin.person)


@tokens.callback()
def all_tokens(
    context: typer.Context,
    of: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only tokens of NAME; listing your own needs no role.")
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List API tokens of people and programs, without their secrets."""
    if context.invoked_subcommand is None:
        value = perform("tokens", None, config, person=of)
        emit(value, as_json=as_json, text=admin.tokens)


@verb(
    DO,
    "lcia tokens create bob --label laptop",
    "lcia tokens create ci --label nightly --days 30 --only look --only submit",
    "lcia tokens create shop --label website --only answer",
    on=tokens,
    name="create",
)
def create_token(
    person: PersonName,
    label: Annotated[str, typer.Option(metavar="TEXT", help="Purpose of the token.")],
    days: Annotated[float, typer.Option(metavar="DAYS", help="Days until it expires; at most 366.")] = 90,
    only: Annotated[
        list[str], typer.Option(metavar="PERMISSION", help="Allow only this, such as look; repeatable.")
    ] = [],  # noqa: B006
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Create a token. Its text is shown only once.

    People who decide or administer create their own: a token that somebody else made for them decides nothing.
    """
    value = perform("create-token", name, config, person=person, label=label, days=days, permissions=tuple(only))
    emit(value, as_json=as_json, text=admin.new_token)


@verb(DO, 'lcia tokens revoke 3f2a9c41b7d0 --reason "laptop lost"', on=tokens, name="revoke")
def revoke_token(
    token: Annotated[str, typer.Argument(metavar="ID", help="As `lcia tokens` shows it.")],
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Revoke a token."""
    value = perform("revoke-token", name, config, token=token, reason=reason)
    emit(value, as_json=as_json, text=admin.revocation)


@policy.callback()
def show_policy(context: typer.Context, as_json: Json = False, config: Config = None) -> None:
    """Show the policy in force, and proposed changes."""
    if context.invoked_subcommand is None:
        value = perform("policy", None, config)
        emit(value, as_json=as_json, text=admin.policy)


@verb(DO, 'lcia policy propose tighter.yaml --reason "two complaints in May"', on=policy, name="propose")
def propose(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="YAML file with the keys of `policy` that should change.")
    ],
    reason: Reason,
    name: As = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Propose a change of the server's policy. Another admin has to accept it."""
    value = perform("propose-policy", name, config, changes=_changes(file), reason=reason)
    emit(value, as_json=as_json, text=admin.proposal)


def _changes(file: Path) -> dict[str, Any]:
    try:
        changes = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ChangeUnreadable(f"{file} can't be read as YAML ({type(error).__name__}): {error}") from error
    if not isinstance(changes, dict):
        raise ChangeUnreadable(f"{file} holds {type(changes).__name__}, expected keys of the section `policy`")
    inner = changes.get("policy")
    return inner if isinstance(inner, dict) else changes


@verb(DO, 'lcia policy accept 2 --reason "agreed in the meeting"', on=policy, name="accept")
def accept(proposal: Proposal, reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Accept a proposed policy, which puts it into force. The proposer can't accept it."""
    value = perform("answer-policy", name, config, proposal=proposal, accept=True, reason=reason)
    emit(value, as_json=as_json, text=admin.proposal)


@verb(DO, 'lcia policy refuse 2 --reason "margins stay"', on=policy, name="refuse")
def refuse(proposal: Proposal, reason: Reason, name: As = None, as_json: Json = False, config: Config = None) -> None:
    """Refuse a proposed policy."""
    value = perform("answer-policy", name, config, proposal=proposal, accept=False, reason=reason)
    emit(value, as_json=as_json, text=admin.proposal)
