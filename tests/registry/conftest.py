"""Fixtures of the tests with a real MLflow."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _little_code(little_code: None) -> None:
    """See there; servers of a module publish under it, too."""
