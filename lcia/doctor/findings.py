"""Findings of the doctor, and the installation that it examines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.settings import Settings

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """Finding of one check."""

    check: str
    verdict: Verdict
    words: str
    advice: str = ""
    """Advice on what to do; empty if all is well."""


@dataclass(frozen=True)
class Installation:
    """Installation to examine; none of its files needs to exist."""

    home: Path
    file: Path | None
    settings: Settings
