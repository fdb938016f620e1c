"""What refers to what: rows to their images, and to nothing that their texts say."""

import io

import numpy as np
from PIL import Image

from components.storage.objects import ObjectStore
from components.storage.reach import Index
from components.tasks.images import Picture
from components.tasks.package import Package
from components.tasks.rows import Example
from components.tasks.snapshot import take_snapshot
from components.tasks.task_file import Task

HEADER = {"name": "made", "version": "1", "owner": "demo", "description": "Made up.", "licence": "CC0-1.0"}


def picture(number: int) -> Picture:
    made = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(made, "PNG")
    return Picture.of(made.getvalue())


def test_a_task_leads_to_its_rows_and_these_to_their_images(store: ObjectStore, tmp_path) -> None:
    elsewhere = store.put(b"something of another task")
    shown = [picture(n) for n in range(3)]
    rows = {
        "train": (Example("What?", None, "a", images=(shown[0], shown[1])),),
        "validation": (Example("What?", elsewhere, elsewhere, images=(shown[2],)),),
        "test": (Example("What?", f'"image":["{elsewhere}"', "a"),),
    }
    snapshot = take_snapshot(Package(tmp_path, Task.model_validate(HEADER, strict=False), rows, ()), store)
    index = Index.of(store)
    kinds = {digest: held.kind for digest, held in index.objects.items()}
    assert [kinds[ref.object] for ref in snapshot.splits.values()] == ["rows", "rows", "bytes"]
    reached = index.reach([snapshot.digest])
    assert {one.digest for one in shown} <= reached
    assert elsewhere not in reached
    assert index.reach([snapshot.splits["validation"].object]) == {
        snapshot.splits["validation"].object,
        shown[2].digest,
    }
