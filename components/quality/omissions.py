"""Checks that could not be made, and why: a verdict names them, so that nobody takes silence for a pass."""

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
        """Those that a record names; records of an earlier release name none."""
        return [cls(**one) for one in record.get("not_checked", ())]

    def __str__(self) -> str:
        """As people read it."""
        return f"not checked: {self.check.replace('_', ' ')}: {self.reason}"


def listed(omissions: Iterable[Omission]) -> list[dict[str, str]]:
    """For a record, each once."""
    return [omission.to_json() for omission in dict.fromkeys(omissions)]
