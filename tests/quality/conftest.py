from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from components.storage.objects import ObjectStore
from components.tasks.package import Package, read_package
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot, take_snapshot
from components.tasks.task_file import Task

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path_factory.mktemp('store')}")


@pytest.fixture(scope="module")
def example_package() -> Callable[[str], Package]:
    return lambda name: read_package(EXAMPLES / name)


@pytest.fixture(scope="module")
def example(store) -> Callable[[str], Snapshot]:
    return lambda name: take_snapshot(read_package(EXAMPLES / name), store)


@pytest.fixture(scope="module")
def snapshot_of(store) -> Callable[..., Snapshot]:
    """A snapshot of rows given as examples, without going through files."""

    def take(
        train: Sequence[Example],
        validation: Sequence[Example],
        test: Sequence[Example],
        **fields: object,
    ) -> Snapshot:
        header = {"name": "made", "version": "1", "owner": "demo", "description": "Made up.", "licence": "CC0-1.0"}
        task = Task.model_validate({**header, **fields}, strict=False)
        splits = {"train": tuple(train), "validation": tuple(validation), "test": tuple(test)}
        return take_snapshot(Package(Path(), task, splits, ()), store)

    return take
