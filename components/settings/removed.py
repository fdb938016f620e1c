"""Keys that settings no longer have: a file with one is refused with what to do, a stored version stays readable."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from components.settings.root import Settings


class Removed(NamedTuple):
    """A key that was removed."""

    default: Any
    """Its value where nobody had set it, as stored versions hold it."""
    advice: str
    """Continues the refusal `<key>: ...`."""


KEYS: dict[str, Removed] = {
    "tuning.ema_lengths": Removed(
        [], "was removed: no gain over theta* was ever measured for averages of other lengths; delete this key"
    ),
}
"""By dotted name."""


def stored_settings(content: Mapping[str, Any]) -> Settings:
    """Settings of a stored version, whichever release wrote them.

    Raises:
        ValidationError: no release wrote this content.
    """
    return Settings.model_validate(_without(content, lambda key, _: key in KEYS))


def without_defaults_removed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a stored version without removed keys that nobody had set: they are no difference to a later one."""
    return _without(content, lambda key, value: key in KEYS and value == KEYS[key].default)


def _without(content: Mapping[str, Any], gone: Callable[[str, Any], bool], prefix: str = "") -> dict[str, Any]:
    return {
        key: _without(value, gone, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in content.items()
        if not gone(f"{prefix}{key}", value)
    }
