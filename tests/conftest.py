"""Fixtures that several folders share: a tiny base model on disk, benches around it, small tasks."""

import gc
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: idle threads must not spin
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # each worker, and each process it starts, has a core
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from private_postgresql import Cluster, PostgresqlMissing, running
from shared import once
from tiny_models import write_tiny_llama

from components.settings import AdapterSettings, BaseModelSettings, Settings, StorageSettings
from components.storage.database import Database
from components.storage.objects import ObjectStore
from components.tasks.package import Package, read_package
from components.tasks.snapshot import Snapshot, take_snapshot

if TYPE_CHECKING:
    from components.model.base import BaseModel
    from components.model.workbench import Workbench

pytest_plugins = ["promotion_fixtures", "small_loop", "small_service"]

EXAMPLES = Path(__file__).parents[1] / "examples" / "tasks"
LONGEST = (
    "worker/test_loop.py", "tuning/test_trainer_callback.py", "registry/test_outbox_rows.py", "steps/test_processes.py",
    "infra/test_kubernetes.py", "storage/test_separate_accounts.py", "worker/test_rebase.py", "retention/test_sweep.py",
    "registry/test_mlflow_faults.py", "tuning/test_ranks.py",
)  # fmt: skip
"""Files of minutes. They come first: one that came last would run alone, beside idle cores."""


WHOLE = {"learnt", "fresh", "zenml_server", "registry", "postgresql"}
"""Fixtures of the whole product, or of MLflow, ZenML and PostgreSQL: what uses one takes seconds, and is `slow`."""


@pytest.hookimpl(tryfirst=True)  # before `-m` deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all others in their order; what runs the whole product is `slow`."""
    order = {Path(__file__).parent / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(LONGEST)))
    for item in items:
        chosen = item.callspec.params.values() if hasattr(item, "callspec") else ()
        fixtures = {*getattr(item, "fixturenames", ()), *(name for name in chosen if isinstance(name, str))}
        if item.path in order or WHOLE & fixtures:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Keep what the libraries made at their import out of garbage collections, each of which looks at all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of four narrow layers with a real tokenizer, saved as any base model is; for all workers."""
    return once(tmp_path_factory, "tiny-llama", write_tiny_llama)


@pytest.fixture(scope="session")
def tiny_settings(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings whose base model is the tiny one, with adapters on its last two layers."""
    home = tmp_path_factory.mktemp("home")
    return Settings(
        base_model=BaseModelSettings(name=str(tiny_folder), device="cpu", threads=1),
        adapter=AdapterSettings(rank=4, alpha=8, top_layers=2),
        storage=StorageSettings(
            database=f"sqlite:///{home}/lcia.db", objects=f"file://{home}/objects", models=f"{home}/models"
        ),
    )


@pytest.fixture(scope="session")
def load_tiny(tiny_settings: Settings) -> Callable[..., "BaseModel"]:
    """Load the tiny model anew, with keys of its settings changed as asked."""
    from components.model.base import load_base

    def load(**changes: Any) -> "BaseModel":
        settings = tiny_settings.base_model.model_copy(update=changes)
        return load_base(settings, Path(tiny_settings.storage.models))

    return load


@pytest.fixture(scope="session")
def tiny_base(load_tiny: Callable[..., "BaseModel"]) -> "BaseModel":
    """The tiny model for tests that put no adapter into it."""
    return load_tiny()


@pytest.fixture
def tiny_bench(tiny_settings: Settings, load_tiny: Callable[..., "BaseModel"]) -> "Workbench":
    """A freshly loaded tiny model with its slot and trunk."""
    from components.model.adapters import AdapterSlot
    from components.model.trunk import Trunk
    from components.model.workbench import Workbench

    base = load_tiny()
    slot = AdapterSlot(base, tiny_settings.adapter)
    return Workbench(base, slot, Trunk(base, slot))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL server of the tests' own."""
    try:
        with running() as cluster:
            yield cluster
    except PostgresqlMissing as missing:
        pytest.skip(f"no PostgreSQL here: {missing}")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of its own for this test, on SQLite and, where it is installed, on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/state.db"
        return
    cluster: Cluster = request.getfixturevalue("postgresql")
    name = cluster.new()
    yield cluster.url(name)
    cluster.drop(name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of this test."""
    found = Database(database_url)
    found.migrate()
    yield found
    found.engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables, which a test makes as a release before had them; see `old_tables`."""
    if request.param == "sqlite":
        yield Database(f"sqlite:///{tmp_path}/empty.db")
        return
    cluster: Cluster = request.getfixturevalue("postgresql")
    name = cluster.new("template1")
    found = Database(cluster.url(name))
    yield found
    found.engine.dispose()
    cluster.drop(name)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """An empty object store."""
    return ObjectStore(f"file://{tmp_path}/objects")


@pytest.fixture(scope="session")
def example_in() -> Callable[..., Snapshot]:
    """A snapshot, in a given store, of a few rows of an example task, with fields of its header changed as asked."""

    def take(
        store: ObjectStore, name: str, train: int = 16, validation: int = 6, test: int = 8, **fields: Any
    ) -> Snapshot:
        package = read_package(EXAMPLES / name)
        sizes = {"train": train, "validation": validation, "test": test}
        splits = {split: package.splits[split][:size] for split, size in sizes.items()}
        return take_snapshot(Package(package.path, package.task.model_copy(update=fields), splits, ()), store)

    return take


@pytest.fixture
def take_example(store: ObjectStore, example_in: Callable[..., Snapshot]) -> Callable[..., Snapshot]:
    """`example_in` with this test's store."""
    return partial(example_in, store)
