"""Fixtures of the command line's tests: `main()` in this process, as a new process would run it."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_loop import SmallLoop

from lcia.cli.main import main


@dataclass(frozen=True)
class Ended:
    """What a call of `lcia` left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON object and nothing else."""
        return json.loads(self.out)


Lcia = Callable[..., Ended]


@pytest.fixture
def lcia(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lcia:
    """`lcia(loop, "verb", ...)` in the loop's folder."""

    def call(loop: SmallLoop, *argv: str | Path | int) -> Ended:
        loop.enter()
        monkeypatch.setenv("LCIA_HOME", str(loop.home))
        monkeypatch.chdir(loop.config.parent)
        monkeypatch.setattr(sys, "argv", ["lcia", *map(str, argv)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        got = capsys.readouterr()
        assert "Traceback" not in got.err
        return Ended(int(str(end.value.code)), got.out, got.err)

    return call
