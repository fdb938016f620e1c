"""Texts of the verbs of a server."""

from collections.abc import Mapping
from typing import Any

import yaml

Value = Mapping[str, Any]


def bootstrap(name: str, token: str | None) -> str:
    """`lcia serve --bootstrap`."""
    if token is None:
        return "There is an admin already; nothing was changed. `lcia people` lists everybody."
    return (
        f"{name} is the first admin. This token is shown once and lasts 30 days; keep it where others can't read it:\n"
        f"  {token}\n"
        "Use it with: export LCIA_SERVER=... LCIA_TOKEN=...; then `lcia people add`, `lcia people grant`. Appoint a "
        "second admin within 7 days: until then one admin appoints alone, afterwards it takes two."
    )


def person(value: Value) -> str:
    """One person or program, in a line."""
    grants = [(each["role"], "all sites" if each["site"] == "*" else each["site"]) for each in value["roles"]]
    roles = ", ".join(f"{role} at {site}" for role, site in grants)
    account = f"; signs in as {value['subject']}" if value["subject"] else ""
    out = f"; shut out since {value['disabled_at'][:10]}" if value["disabled_at"] else ""
    waiting = f"\n  {appointment(value['proposal'])}" if value.get("proposal") else ""
    return f"{value['name']}: {roles or 'no role'}{account}{out}{waiting}"


def appointment(value: Value) -> str:
    """A proposed role or account, in a line."""
    line = f"proposal {value['id']}, {value['words']}: {value['state']}; proposed by {value['proposed_by']}"
    if value["state"] == "open":
        return f"{line}: {value['reason']}. Another admin decides: `lcia people accept {value['id']} --reason ...`"
    by = f", accepted by {value['accepted_by']}" if value["accepted_by"] else ""
    return f"{line}{by}: {value['reason']}"


def people(value: Value) -> str:
    """`lcia people`."""
    lines = [*map(person, value["people"]), *map(appointment, value.get("proposals", ()))]
    return "\n".join(lines) if lines else "Nobody yet: `lcia people add NAME`."


def tokens(value: Value) -> str:
    """`lcia tokens`."""
    entries = value["tokens"]
    return "\n".join(map(_token, entries)) if entries else "None yet: `lcia tokens create NAME --label WHAT`."


def _token(value: Value) -> str:
    state = f"revoked {value['revoked_at'][:10]}" if value["revoked_at"] else f"until {value['expires_at'][:10]}"
    last_use = f"last used {value['last_used_at'][:16]}" if value["last_used_at"] else "never used"
    only = f", only {', '.join(value['permissions'])}" if value["permissions"] else ""
    by = f", made by {value['made_by']}: decides nothing" if value["foreign"] else ""
    return f"{value['id']}  {value['person']}: {value['label']} ({state}, {last_use}{only}{by})"


def new_token(value: Value) -> str:
    """`lcia tokens create`."""
    return (
        f"Token {value['id']} of {value['person']}, until {value['expires_at'][:10]}. It is shown this once:\n"
        f"  {value['token']}"
    )


def revocation(value: Value) -> str:
    """`lcia tokens revoke`."""
    return f"Token {value['id']} ({value['label']}) of {value['person']} is revoked."


def proposal(value: Value) -> str:
    """A proposal, in a line."""
    by = f", accepted by {value['accepted_by']}" if value["accepted_by"] else ""
    return f"policy {value['id']}: {value['state']}; proposed by {value['proposed_by']}{by}: {value['reason']}"


def policy(value: Value) -> str:
    """`lcia policy`."""
    whose = f"the server's own, policy {value['number']}" if value["server"] else "the section `policy` of zenml.yaml"
    lines = [f"In force: {whose}", yaml.safe_dump(value["policy"], sort_keys=False).rstrip()]
    return "\n".join([*lines, *map(proposal, value["proposals"])])
