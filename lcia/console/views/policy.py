"""The policy: what a version must fulfil and who decides, since when, what is proposed, and how well the gate sees."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from fastapi import APIRouter, Request
from fastapi.responses import Response

from components.names import same_person
from components.promotion import policy as policies
from components.promotion.policy import Proposal
from components.settings import differences
from components.settings.reference import Key, keys
from lcia.console.base import Console, Reader
from lcia.worker.plan import lineage_power

SECTION = "policy."
EXAMPLE = "gate:\n  step_margin: 0.05\napproval:\n  quorum: 2\n"
"""What a proposal looks like; keys that are left out stay as they are."""


def routes(console: Console) -> APIRouter:
    """/policy and /policy/power."""
    router = APIRouter(include_in_schema=False)

    @router.get("/policy")
    def policy(request: Request) -> Response:
        reader, instance = console.reader(request), console.instance
        with instance.db.read() as connection:
            standing = policies.in_force(connection, instance.assistant)
            proposals = policies.proposals(connection, instance.assistant)
        content = standing.content if standing else instance.settings.policy.model_dump(mode="json")
        return console.page(
            reader,
            "policy.html",
            standing=standing,
            sections=_sections(content),
            open=[_open(reader, one, content) for one in proposals if one.state == "open"],
            ended=[one for one in proposals if one.state != "open"],
            example=EXAMPLE,
        )

    @router.get("/policy/power")
    def power(request: Request) -> Response:
        reader = console.reader(request)
        found = lineage_power(console.instance.current())
        if request.headers.get("hx-request"):
            return console.fragment(reader, "policy_power.html", power=found)
        return console.page(reader, "policy_power_page.html", power=found)

    return router


def _sections(content: Mapping[str, Any]) -> list[tuple[str, list[tuple[Key, str, bool]]]]:
    """By section: each key with its value as YAML, and whether that is the default; sites' own rules after them."""
    found: dict[str, list[tuple[Key, str, bool]]] = {}
    known = {key.name.removeprefix(SECTION): key for key in keys(SECTION)}
    for name, key in known.items():
        if ".NAME." in name:
            continue
        value = _value(content, name)
        found.setdefault(name.split(".")[0], []).append((key, as_yaml(value), value == key.default))
    return list(found.items())


def _value(content: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - what the key holds
    value: Any = content
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _open(reader: Reader, one: Proposal, content: Mapping[str, Any]) -> dict[str, Any]:
    """A proposal, what it changes, and whether the reader may accept it."""
    return {
        "proposal": one,
        "changes": list(_changes(content, one.content)),
        "own": same_person(one.proposed_by, reader.name),
    }


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Keys that differ, with both values as YAML."""
    for name in sorted(differences(dict(after), dict(before))):
        yield name, as_yaml(_value(before, name)), as_yaml(_value(after, name))


def as_yaml(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """A value as the settings file has it, in one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )
