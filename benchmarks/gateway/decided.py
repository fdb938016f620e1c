"""Source of decisions that are signed with a state's own key, without a promotion: as many as a measurement needs."""

from collections.abc import Mapping
from typing import Any

from components.audit import keyring, statement
from components.storage.objects import ObjectStore
from lcia.instance import Instance

FIRST_EPOCH = 1000
"""Later than every decision of the state."""
ENTRY = 10**6
"""Entry of the log that statements name; later than every rotation of the key."""


class SignedSource:
    """Tells gateways of the newest decision, with a statement that holds, and hands out objects of a store."""

    local = True

    def __init__(self, instance: Instance, store: ObjectStore) -> None:
        self._instance, self._store, self._epoch = instance, store, FIRST_EPOCH
        self._key = instance.signing_key()
        with instance.db.read() as connection:
            self._records = keyring.records(connection)
        self._answer: dict[str, Any] = {
            "assistant": instance.assistant,
            "champion": None,
            "version": None,
            "trial": None,
            "tokens": [],
        }

    def decide(self, number: int, digest: str) -> None:
        """Make a version the champion."""
        assistant, self._epoch = self._instance.assistant, self._epoch + 1
        predicate = {"assistant": assistant, "epoch": self._epoch, "log": {"entry": ENTRY}}
        signed = statement.sign(self._key, statement.payload(assistant, number, digest, predicate), self._records)
        facts = {"number": number, "digest": digest, "epoch": self._epoch}
        self._answer = {**self._answer, "champion": {**facts, "statement": signed.decode(), "problem": None}}

    def perform(self, operation: str, params: Mapping[str, Any]) -> Any:  # noqa: ARG002 - the same for all
        """The decision; reports are dropped."""
        return self._answer if operation == "serving" else {}

    def part(self, version: str, digest: str) -> bytes:  # noqa: ARG002 - the store holds every version
        """Bytes of an object."""
        return self._store.get(digest)
