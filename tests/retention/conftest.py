"""Fixtures of the retention tests."""

from pathlib import Path

import pytest
import traces
from small_loop import Learnt, SmallLoop, champion, fresh, learnt, pending

__all__ = ["champion", "fresh", "learnt", "pending"]


@pytest.fixture
def own(learnt: Learnt, tmp_path: Path) -> SmallLoop:
    """Three promoted versions whose MLflow and ZenML files are its own, so that they may be deleted."""
    copy = learnt.loop.copy(tmp_path)
    traces.move(copy.home, learnt.loop.home)
    return copy
