"""Fixtures of everything that is decided: a state with candidates, and an MLflow to tell it to."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from promotion_state import State

import components
from components.registry.registry import Registry
from components.storage import privileges
from components.storage.database import Database
from components.storage.objects import ObjectStore

COMPONENTS = Path(components.__file__).parent


@pytest.fixture
def state(tmp_path: Path, database: Database) -> State:
    return State(tmp_path, database, ObjectStore(f"file://{tmp_path}/objects"))


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated MLflow database, copied for each test: making one takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    Registry(f"sqlite:///{folder}/mlflow.db", str(folder), "x", "a").champion()
    return folder / "mlflow.db"


@pytest.fixture(scope="module")
def little_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models are published with four modules instead of two hundred: as many kinds of files, a tenth of the time.

    That all of `components` goes with a model, and is enough to answer in a fresh process, is for tests/serving.
    """
    import mlflow.pyfunc

    code, save = tmp_path_factory.mktemp("code") / "components", mlflow.pyfunc.save_model
    for name in ("__init__.py", "errors.py", "serving/__init__.py", "serving/mlflow_model.py"):
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(COMPONENTS / name, code / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow.pyfunc, "save_model", lambda **options: save(**{**options, "code_paths": [str(code)]}))
        yield


@pytest.fixture
def registry(tmp_path: Path, empty_mlflow: Path, little_code: None) -> Registry:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return Registry(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "art ifacts"), "lcia", "a")


@pytest.fixture
def accounts(postgresql, tmp_path):
    """The same state, opened by each account and by the owner of the tables."""
    name = postgresql.new()
    postgresql.execute(privileges.script(), name)
    found = {
        account: Database(postgresql.url(name, user))
        for account, user in [("owner", "postgres"), *((one, f"lcia_{one}") for one in privileges.ACCOUNTS)]
    }
    store = ObjectStore(f"file://{tmp_path}/objects")
    yield {account: State(tmp_path, db, store) for account, db in found.items()}
    for db in found.values():
        db.engine.dispose()
    postgresql.drop(name)
