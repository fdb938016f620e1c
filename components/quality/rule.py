"""One rule of the data checks."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["hard", "soft"]


@dataclass(frozen=True)
class Rule:
    """One expectation with its name, its severity and its words for people."""

    name: str
    severity: Severity
    words: str
    expectation: Any
    shows: str = ""
    """Column whose values are shown with the rows that break the rule; they may be shown to anybody."""
    worst: str = ""
    """The row that breaks it worst, with the fault; may be shown to anybody."""
