"""Every key of zenml.yaml, with its type, default and meaning, read off the typed settings."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from components.settings.root import Settings

WORDS = {"None": "null", "True": "true", "False": "false"}
"""What the docstrings say in Python's words, in the file's."""


@dataclass(frozen=True)
class Key:
    """One key of the settings file."""

    name: str
    """Dotted, as `--set` takes it."""
    type: str
    default: Any
    meaning: str

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def keys(prefix: str = "") -> list[Key]:
    """The keys that begin with `prefix`, in the order of the file."""
    return [key for key in _walk(Settings, "", Settings().model_dump(mode="json")) if key.name.startswith(prefix)]


def words(found: list[Key]) -> str:
    """A paragraph per key."""
    return "\n".join(f"{key.name} = {_shown(key.default)}   ({key.type})\n    {key.meaning}" for key in found)


def page() -> str:
    """`docs/settings.md`: a table per section."""
    lines = [
        "# Settings",
        "",
        "Every key of `zenml.yaml`, as `lcia settings` prints it. `--set a.b=c` and `LCIA__A__B=c` set the same keys.",
    ]
    section = None
    for key in keys():
        above, _, name = key.name.rpartition(".")
        if above != section:
            section = above
            lines += ["", f"## {above or 'at the top'}", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        cells = (f"`{name}`", key.type, f"`{_shown(key.default)}`", key.meaning)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _walk(model: type[BaseModel], prefix: str, defaults: dict[str, Any]) -> Iterator[Key]:
    """Plain keys of a section before the sections within it."""
    sections: list[tuple[str, type[BaseModel], dict[str, Any]]] = []
    for name, field in model.model_fields.items():
        if _is_section(field.annotation):
            sections.append((name, field.annotation, defaults[name]))
            continue
        meaning = " ".join((field.description or "").split())
        for python, yaml in WORDS.items():
            meaning = re.sub(rf"\b{python}\b", yaml, meaning)
        default = "needed" if field.is_required() else defaults[name]
        inner = next(filter(_is_section, get_args(field.annotation)), None)
        if inner is None:
            yield Key(prefix + name, _type(field), default, meaning)
            continue
        named = get_origin(field.annotation) in (dict, Mapping)
        yield Key(
            prefix + name,
            "sections by name" if named else "section or null",
            "{...}" if default and named else default,
            meaning,
        )
        sections.append((f"{name}.NAME" if named else name, inner, _own_defaults(inner)))
    for name, section, values in sections:
        yield from _walk(section, f"{prefix}{name}.", values)


def _is_section(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _own_defaults(section: type[BaseModel]) -> dict[str, Any]:
    """Defaults of a section that need not be there, as JSON; those of needed keys are left out."""
    given = {
        name: None if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in section.model_fields.items()
    }
    return section.model_construct(**given).model_dump(mode="json", warnings=False)


def _type(field: FieldInfo) -> str:
    return ", ".join([_name(field.annotation), *_bounds(field.metadata)])


def _name(kind: Any) -> str:  # noqa: ANN401 - any annotation
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return ", ".join([_name(arguments[0]), *_bounds(list(arguments[1:]))])
    if origin is Literal:
        return " or ".join(str(value) for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join("null" if part is type(None) else _name(part) for part in arguments)
    if origin is tuple:
        return f"list of {_name(arguments[0])}"
    if origin in (dict, Mapping):
        return "mapping"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        kind.__name__, kind.__name__
    )


def _bounds(metadata: list[Any]) -> list[str]:
    found = []
    for bound in metadata:
        if isinstance(bound, FieldInfo):
            found += _bounds(bound.metadata)
        elif isinstance(bound, Ge | Gt):
            found.append(f"at least {bound.ge:g}" if isinstance(bound, Ge) else f"above {bound.gt:g}")  # type: ignore[str-format]
        elif isinstance(bound, Le | Lt):
            found.append(f"at most {bound.le:g}" if isinstance(bound, Le) else f"below {bound.lt:g}")  # type: ignore[str-format]
        elif isinstance(bound, Len):
            found.append(f"at least {bound.min_length} of them")
        elif getattr(bound, "pattern", None):
            found.append(f"matching {bound.pattern}")
    return found


def _shown(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value)
