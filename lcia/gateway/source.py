"""DecisionSource of decisions: the service of LCIA_SERVER, or the state on this machine."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lcia import client
from lcia.instance import Instance, actor
from lcia.operations import serving
from lcia.operations.table import OPERATIONS

SECONDS = 30.0
"""Limit to the wait for one answer of the service."""


class DecisionSource(Protocol):
    """Other side, from which a gateway learns what to serve.

    Calls block, and raise LciaError if it does not answer.
    """

    local: bool
    """True for a state on this machine."""

    def perform(self, operation: str, params: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON
        """Answer of an operation: `serving`, `report`."""

    def part(self, version: str, digest: str) -> bytes:
        """Bytes of a version's part."""


class ServerSource:
    """The service that LCIA_SERVER names, asked with the token in LCIA_TOKEN."""

    local = False

    def perform(self, operation: str, params: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON
        """Answer of an operation."""
        return client.perform(operation, params, None, None, seconds=SECONDS)

    def part(self, version: str, digest: str) -> bytes:
        """Bytes of a version's part."""
        return client.part(version, digest)


class StateSource:
    """The state on this machine, opened at the first call that succeeds."""

    local = True

    def __init__(self, open_state: Callable[[], Instance]) -> None:
        self._open = open_state
        self._instance: Instance | None = None

    def perform(self, operation: str, params: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON
        """Answer of an operation."""
        action = OPERATIONS[operation]
        return action.run(self._state(), actor(None), action.check(params))

    def part(self, version: str, digest: str) -> bytes:
        """Bytes of a version's part."""
        return serving.part(self._state(), version, digest)

    def _state(self) -> Instance:
        self._instance = self._instance or self._open()
        return self._instance
