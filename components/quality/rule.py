"""One rule of the data checks."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["hard", "soft"]


@dataclass(frozen=True)
class Rule:
    """One expectation with its name and severity, and in words what it expects."""

    name: str
    severity: Severity
    expected: str
    expectation: Any
    shows: str = ""
    """Column whose values are shown with the rows that break the rule; its values may be shown to anybody."""
    worst: str = ""
    """The row that breaks it worst, and how; may be shown to anybody."""
