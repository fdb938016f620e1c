"""Checks that could not be made, with reasons: a verdict names them, so that nobody takes silence for a pass."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Omission:
    """One check, or a part of it, that was not made."""

    check: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """For a record."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> list[Self]:
        """The omissions in a record; records of an earlier release have none."""
        return [cls(**one) for one in record.get("not_checked", ())]

    def __str__(self) -> str:
        """The sentence for people."""
        return f"not checked: {self.check.replace('_', ' ')}: {self.reason}"


def as_records(omissions: Iterable[Omission]) -> list[dict[str, str]]:
    """The omissions for a record, each once."""
    return [omission.to_json() for omission in dict.fromkeys(omissions)]
