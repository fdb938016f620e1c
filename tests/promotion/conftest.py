"""Fixtures of the promotion tests."""

import shutil
from pathlib import Path

import pytest
from promotion_state import State

from components.promotion.registry import Registry
from components.storage.database import Database
from components.storage.objects import ObjectStore


@pytest.fixture
def state(tmp_path: Path, database: Database) -> State:
    return State(tmp_path, database, ObjectStore(f"file://{tmp_path}/objects"))


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated MLflow database, copied for each test: making one takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    Registry(f"sqlite:///{folder}/mlflow.db", str(folder), "x", "a").champion()
    return folder / "mlflow.db"


@pytest.fixture
def registry(tmp_path: Path, empty_mlflow: Path) -> Registry:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return Registry(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "art ifacts"), "lcia", "a")
