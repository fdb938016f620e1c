"""Settings that were removed: a file that asks for one is refused with what to do, a stored version stays readable."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from components.settings.root import Settings, with_later_keys


class RemovedKey(NamedTuple):
    """A key that was removed."""

    default: Any
    """Its value where nobody had set it, as stored versions hold it."""
    advice: str
    """Continues the refusal `<key>: ...`."""


class Choice(NamedTuple):
    """A value that a key no longer takes."""

    value: str
    instead: str
    """Value that stored settings are read with."""
    advice: str


GONE = object()
KEYS: dict[str, RemovedKey] = {
    "tuning.ema_lengths": RemovedKey(
        [], "was removed: no gain over theta* was ever measured for averages of other lengths; delete this key"
    ),
}
CHOICES: dict[str, Choice] = {
    "grouping.at_cap": Choice(
        "merge", "hold", "`merge` was removed: it cost a task .11 where the gate allows .06; write hold or nearest"
    ),
}


def advice(key: str, value: object) -> str | None:
    """Refusal of a removed key, or of a removed value of a key; None where neither is."""
    if key in KEYS:
        return KEYS[key].advice
    choice = CHOICES.get(key)
    return choice.advice if choice and value == choice.value else None


def stored_settings(content: Mapping[str, Any]) -> Settings:
    """Settings of a stored version, whichever release wrote them.

    Raises:
        ValidationError: no release wrote this content.
    """
    return Settings.model_validate(with_later_keys(_rewritten(content, _present)))


def without_defaults_removed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a stored version without removed keys that nobody had set: they are no difference to a later one."""
    return _rewritten(content, lambda key, value: GONE if key in KEYS and value == KEYS[key].default else value)


def _present(key: str, value: object) -> object:
    choice = CHOICES.get(key)
    return GONE if key in KEYS else choice.instead if choice and value == choice.value else value


def _rewritten(content: Mapping[str, Any], new: Callable[[str, Any], Any], prefix: str = "") -> dict[str, Any]:
    """`content` with `new(dotted name, value)` for each value, without those that are `GONE`."""
    values = {
        key: _rewritten(value, new, f"{prefix}{key}.") if isinstance(value, Mapping) else new(f"{prefix}{key}", value)
        for key, value in content.items()
    }
    return {key: value for key, value in values.items() if value is not GONE}
