"""Fixtures of the retention tests."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest
import traces
from small_loop import Learnt, SmallLoop


@pytest.fixture
def own(learnt: Learnt, tmp_path: Path) -> SmallLoop:
    """Three promoted versions whose MLflow and ZenML files are its own, so that they may be deleted."""
    copy = learnt.loop.copy(tmp_path)
    traces.move(copy.home, learnt.loop.home)
    _only_own_artifacts(copy.home / "zenml" / "local_stores")
    return copy


def _only_own_artifacts(stores: Path) -> None:
    """Drop what runs of other homes left here: in one process ZenML goes on writing to the first home's store."""
    with contextlib.closing(sqlite3.connect(stores / "default_zen_store" / "zenml.db")) as connection:
        known = {Path(uri) for (uri,) in connection.execute("SELECT uri FROM artifact_version")}
    for place in stores.glob("*/*/*/*/*"):
        if place.is_dir() and place not in known:
            shutil.rmtree(place)
