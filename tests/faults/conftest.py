"""Fixtures of the kill tests."""

from pathlib import Path

import pytest
from small_loop import Learnt, SmallLoop, learn_all, write_loop


@pytest.fixture(scope="session")
def learnt(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """Three tasks learnt and promoted undisturbed; look, but change only copies."""
    return learn_all(tiny_folder, tmp_path_factory)


@pytest.fixture
def pending(learnt: Learnt, tmp_path: Path) -> SmallLoop:
    """A copy of the loop in which the first candidate waits for people."""
    return learnt.pending.copy(tmp_path)


@pytest.fixture
def champion(learnt: Learnt, tmp_path: Path) -> SmallLoop:
    """A copy of the loop with three promoted versions."""
    return learnt.loop.copy(tmp_path)


@pytest.fixture
def fresh(tiny_folder: Path, tmp_path: Path) -> SmallLoop:
    """An empty home with settings and packages."""
    return write_loop(tmp_path, tiny_folder)
