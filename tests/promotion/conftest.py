"""Fixtures of the promotion tests."""

from pathlib import Path

import pytest
from promotion_state import State, new_state


@pytest.fixture
def state(tmp_path: Path) -> State:
    return new_state(tmp_path)
