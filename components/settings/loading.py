"""`zenml.yaml` as typed, frozen settings: file < `LCIA__A__B=c` < `--set a.b=c`.

Settings are resolved once, when a run is created, stored as an object and handed to the steps by digest. Unknown keys
and unknown `LCIA__*` variables are errors, never ignored.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from components.errors import LciaError
from components.settings.removed import advice
from components.settings.root import Settings
from components.settings.services import AuditSettings, RegistrySettings, StorageSettings

ENVIRONMENT_PREFIX = "LCIA__"


class SettingsError(LciaError):
    """A key or value in zenml.yaml, the environment or --set is wrong."""


def home() -> Path:
    """The state folder: `LCIA_HOME`, default `.lcia` in the working directory."""
    return Path(os.environ.get("LCIA_HOME") or ".lcia").absolute()


def load_settings(
    path: Path | None = None,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    home_folder: Path | None = None,
) -> Settings:
    """Read settings from `path`, the environment and `a.b=c` overrides; later sources win.

    Raises:
        SettingsError: unreadable YAML, an unknown key or a value out of range.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    source = "the built-in defaults"
    if path is not None:
        source = str(path)
        values = _read_yaml(path)
    for key, value in sorted(environment.items()):
        if key.startswith(ENVIRONMENT_PREFIX):
            parts = [part.lower() for part in key.removeprefix(ENVIRONMENT_PREFIX).split("__")]
            _assign(values, parts, value, f"environment variable {key}")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise SettingsError(f"--set {override!r} has no '='; write it as --set section.key=value")
        _assign(values, key.strip().split("."), value, f"--set {override}")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, source)) from error
    return _with_home(settings, home_folder or home())


def changed_keys(settings: Settings) -> list[str]:
    """Dotted names of the content settings that differ from the defaults, sorted."""
    return sorted(differences(settings.content(whole=True), Settings().content(whole=True)))


def differences(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """Dotted names of values in `first` that differ in `second`; the name of a mapping if its keys differ."""
    for key, value in first.items():
        other = second.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping) and value.keys() == other.keys():
            yield from differences(value, other, f"{prefix}{key}.")
        elif value != other:
            yield f"{prefix}{key}"


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted names of all values that are no mappings, with the values."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(
            f"no settings file at {path}; run from the project folder or name one with --config"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds a {type(values).__name__}, expected a mapping of sections")
    return values


def _assign(values: dict[str, Any], parts: list[str], text: str, source: str) -> None:
    node = values
    for part in parts[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise SettingsError(f"{source}: {part!r} is a value, not a section of zenml.yaml")
    try:
        node[parts[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{source}: {text!r} is not a YAML value") from error


def _explain(error: ValidationError, source: str) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "settings"
        if sentence := advice(key, problem["input"]):
            lines.append(f"{key}: {sentence}")
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_nearest(problem['loc'])}; `lcia settings` lists the known ones")
        else:
            actual = "" if isinstance(problem["input"], dict) else f" (seen: {problem['input']!r})"
            lines.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}{actual}")
    return f"settings from {source}, LCIA__* and --set do not fit:\n  " + "\n  ".join(lines)


def _nearest(path: Sequence[str | int]) -> str:
    """`, did you mean ...?` if a key of the same section is spelt much like the last part of `path`."""
    node: Any = Settings().model_dump()
    for part in path[:-1]:
        node = node.get(part, {}) if isinstance(node, dict) else {}
    near = get_close_matches(str(path[-1]), list(node), 1) if isinstance(node, dict) else []
    return f", did you mean {'.'.join(map(str, [*path[:-1], near[0]]))}?" if near else ""


def _with_home(settings: Settings, folder: Path) -> Settings:
    storage = {k: v.replace("{home}", str(folder)) for k, v in settings.storage.model_dump().items()}
    registry = {k: v.replace("{home}", str(folder)) for k, v in settings.registry.model_dump().items()}
    audit = AuditSettings(
        heads_to=tuple(place.replace("{home}", str(folder)) for place in settings.audit.heads_to),
        public_key=settings.audit.public_key.replace("{home}", str(folder)),
    )
    gateway = settings.gateway.model_copy(update={"cache": settings.gateway.cache.replace("{home}", str(folder))})
    update = {
        "storage": StorageSettings(**storage),
        "registry": RegistrySettings(**registry),
        "audit": audit,
        "gateway": gateway,
    }
    return settings.model_copy(update=update)
