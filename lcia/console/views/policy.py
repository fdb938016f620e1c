"""The policy: requirements of a version and who decides, since when, proposals, and how well the gate sees."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from fastapi import APIRouter, Request
from fastapi.responses import Response

from components.names import same_person
from components.settings import differences
from components.settings.reference import Key, keys
from lcia.console.base import Console, Reader
from lcia.worker.plan import lineage_power

SECTION = "policy."
EXAMPLE = "gate:\n  step_margin: 0.05\napproval:\n  quorum: 2\n"
"""A first proposal to edit; keys that are left out stay as they are."""


def routes(console: Console) -> APIRouter:
    """/policy and /policy/power."""
    router = APIRouter(include_in_schema=False)

    @router.get("/policy")
    def policy(request: Request) -> Response:
        reader = console.reader(request)
        answer = console.ask(reader, "policy")
        content, proposals = answer["policy"], answer["proposals"]
        return console.page(
            reader,
            "policy.html",
            standing=answer["standing"],
            sections=_sections(content),
            open=[_open(reader, proposal, content) for proposal in proposals if proposal["state"] == "open"],
            earlier=[proposal for proposal in proposals if proposal["state"] != "open"],
            example=EXAMPLE,
        )

    @router.get("/policy/power")
    def show_power(request: Request) -> Response:
        reader = console.reader(request)
        power = lineage_power(console.instance.current())
        if request.headers.get("hx-request"):
            return console.fragment(reader, "policy_power.html", power=power)
        return console.page(reader, "policy_power_page.html", power=power)

    return router


def _sections(content: Mapping[str, Any]) -> list[tuple[str, list[tuple[Key, str, bool]]]]:
    """By section: each key with its value as YAML, and whether that is the default; sites' own rules after them."""
    sections: dict[str, list[tuple[Key, str, bool]]] = {}
    by_name = {key.name.removeprefix(SECTION): key for key in keys(SECTION)}
    for name, key in by_name.items():
        if ".NAME." in name:
            continue
        value = _value(content, name)
        sections.setdefault(name.split(".")[0], []).append((key, as_yaml(value), value == key.default))
    return list(sections.items())


def _value(content: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - what the key holds
    value: Any = content
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _open(reader: Reader, proposal: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """A proposal, the keys that it changes, and whether it is the reader's own, who may not accept it."""
    return {
        "proposal": proposal,
        "changes": list(_changes(content, proposal["content"])),
        "own": same_person(proposal["proposed_by"], reader.name),
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
