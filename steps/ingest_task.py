"""Step: the submitted package becomes an immutable snapshot."""

import tempfile
from pathlib import Path
from typing import Annotated

from zenml import log_metadata, step

from components.tasks.isolation import take
from steps.order import open_order


@step(enable_cache=False)
def ingest_task(store: str, order: str) -> Annotated[str, "task"]:
    """Digest of the snapshot.

    Raises:
        PackageError: the package is refused; names file, line and field.
    """
    context = open_order(store, order)
    with tempfile.TemporaryDirectory() as folder:
        package = context.store.get_folder(context.order.package, Path(folder) / "package")
        label = f"package {context.order.package[:12]}"
        intake = take(package, context.store, context.settings.packages, Path(folder), label=label, files=False)
    snapshot = intake.snapshot
    rows = {split: ref.rows for split, ref in snapshot.splits.items()}
    log_metadata({"task": snapshot.task.label, "owner": snapshot.task.owner, "rows": rows})
    return snapshot.digest
