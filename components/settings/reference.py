"""Reference of all keys of zenml.yaml: type, default and meaning, read off the typed settings."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from types import UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from components.settings.loading import leaves
from components.settings.profiles import PROFILES
from components.settings.root import Settings

WORDS = {"None": "null", "True": "true", "False": "false"}
"""Python's words in docstrings -> those of the file."""


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
    every = _walk(Settings, "", Settings().model_dump(mode="json"))
    return [_with_profiles(key) if key.name == "profile" else key for key in every if key.name.startswith(prefix)]


def words(entries: list[Key]) -> str:
    """A paragraph per key."""
    return "\n".join(f"{key.name} = {_text(key.default)}   ({key.type})\n    {key.meaning}" for key in entries)


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
        cells = (f"`{name}`", key.type, f"`{_text(key.default)}`", key.meaning)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _with_profiles(key: Key) -> Key:
    """The key `profile`, with the values that each profile sets."""
    values = {name: ", ".join(f"{k} {_text(v)}" for k, v in leaves(own)) for name, own in PROFILES.items() if own}
    return replace(key, meaning=f"{key.meaning} {' '.join(f'`{name}`: {text}.' for name, text in values.items())}")


def _walk(model: type[BaseModel], prefix: str, defaults: dict[str, Any]) -> Iterator[Key]:
    """Keys of a section: first the plain ones, then those of the sections within it."""
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
        by_name = get_origin(field.annotation) in (dict, Mapping)
        yield Key(
            prefix + name,
            "sections by name" if by_name else "section or null",
            "{...}" if default and by_name else default,
            meaning,
        )
        sections.append((f"{name}.NAME" if by_name else name, inner, _own_defaults(inner)))
    for name, section, values in sections:
        yield from _walk(section, f"{prefix}{name}.", values)


def _is_section(kind: Any) -> TypeGuard[type[BaseModel]]:  # noqa: ANN401 - any annotation
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _own_defaults(section: type[BaseModel]) -> dict[str, Any]:
    """Defaults of an optional section, as JSON; required keys are null.

    Such a section can't be built without its required keys, so `model_construct` skips the checks.
    """
    values = {
        name: None if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in section.model_fields.items()
    }
    return section.model_construct(**values).model_dump(mode="json", warnings=False)


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
    name: str = kind.__name__
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(name, name)


def _bounds(metadata: list[Any]) -> list[str]:
    limits = []
    for constraint in metadata:
        if isinstance(constraint, FieldInfo):
            limits += _bounds(constraint.metadata)
        elif isinstance(constraint, Ge | Gt):
            limits.append(f"at least {constraint.ge:g}" if isinstance(constraint, Ge) else f"above {constraint.gt:g}")
        elif isinstance(constraint, Le | Lt):
            limits.append(f"at most {constraint.le:g}" if isinstance(constraint, Le) else f"below {constraint.lt:g}")
        elif isinstance(constraint, Len):
            limits.append(f"at least {constraint.min_length} of them")
        elif getattr(constraint, "pattern", None):
            limits.append(f"matching {constraint.pattern}")
    return limits


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)
