"""What `lcia doctor` looks at, and what it finds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.settings import Settings

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line."""

    check: str
    verdict: Verdict
    words: str
    advice: str = ""
    """What to do; empty where all is well."""


@dataclass(frozen=True)
class Patient:
    """What is looked at; nothing of it needs to be there."""

    home: Path
    file: Path | None
    settings: Settings
