"""A task with images through the whole product: assessed, learnt, promoted, asked, withdrawn."""

import contextlib
import io
import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from small_loop import OPS, SECTIONS, SmallLoop, learn, promote
from vision_models import llava

from components.errors import LciaError
from components.storage.objects import ObjectErased
from components.tasks.snapshot import load_snapshot
from lcia import answering, auditing, keeping, verbs
from lcia.worker import work
from lcia.workplace import Workplace

SHADES = {"dark": 30, "light": 225}
ROWS = {"train": 20, "validation": 10, "test": 10}


def picture(level: int, seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(-25, 26, (16, 16, 3))
    made = io.BytesIO()
    Image.fromarray((level + noise).clip(0, 255).astype(np.uint8)).save(made, "PNG")
    return made.getvalue()


def image_package(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    header = {"name": folder.name, "version": "1", "owner": "site", "description": "Shades.", "licence": "CC0-1.0"}
    choice = {"choices": list(SHADES), "decoding": {"mode": "choose"}, "retention": {"train_rows": 4}}
    (folder / "task.yaml").write_text(yaml.safe_dump({**header, **choice}))
    number = 0
    for split, count in ROWS.items():
        rows = []
        for n in range(count):
            answer = list(SHADES)[n % 2]
            (folder / f"images/{number}.png").write_bytes(picture(SHADES[answer], number))
            rows.append({"instruction": "How light is it?", "image": f"images/{number}.png", "output": answer})
            number += 1
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def seeing(tmp_path: Path) -> SmallLoop:
    """An empty home whose base model sees."""
    base = llava(tmp_path / "llava")
    settings = {"base_model": {"name": str(base), "device": "cpu", "threads": 1}, **SECTIONS}
    (tmp_path / "zenml.yaml").write_text(yaml.safe_dump(settings))
    return SmallLoop(tmp_path / "home", tmp_path / "zenml.yaml", tmp_path / "packages")


def test_an_image_task_is_learnt_asked_and_withdrawn(seeing: SmallLoop) -> None:
    place = seeing.open("retention.grace_hours=0")
    package = image_package(seeing.packages / "shade")
    assert learn(place, package)["state"] == "candidate"
    promote(place)
    shown = [package / "images" / "38.png"]
    said = answering.ask(place, "How light is it?", None, None, base=False, images=shown)
    assert said["answer"] in SHADES
    assert said["group"] == "g1"
    assert answering.ask(place, "How light is it?", None, None, base=True, images=shown)["version"] is None
    (entry,) = place.pool(place.champion().digest).tasks()
    snapshot = load_snapshot(place.store, entry.task)
    train = {picture.digest for row in snapshot.rows("train") for picture in row.images}
    tested = {picture.digest for row in snapshot.rows("test") for picture in row.images}
    kept = {digest for row in place.store.get_lines(entry.kept_rows) for digest in row["image"]}
    assert len(kept) == 4

    assert (
        by_mlflow(place, package)
        == answering.ask(place, "How light is it?", None, None, base=False, images=shown)["answer"]
    )

    keeping.clean(place, OPS)
    assert {digest for digest in train if place.store.exists(digest)} == kept
    assert all(place.store.exists(digest) for digest in tested)
    assert answering.reevaluate(place, None)["ok"]

    keeping.withdraw(place, "shade", OPS, "no licence")
    for digest in train | tested:
        with pytest.raises(ObjectErased):
            place.store.get(digest)
    assert auditing.verify(place).ok


def by_mlflow(place: Workplace, package: Path) -> str:
    """The answer of the champion as MLflow loads it."""
    mlflow.set_tracking_uri(place.settings.registry.tracking_uri)
    model = mlflow.pyfunc.load_model(
        "models:/assistant@champion", model_config={"models": place.settings.storage.models}
    )
    file = (package / "images" / "38.png").read_bytes()
    frame = pd.DataFrame({"instruction": ["How light is it?"] * 2, "image": [[file], None]})
    return model.predict(frame)["answer"][0]


def test_a_text_only_base_model_stops_an_image_task_with_its_reason(fresh: SmallLoop) -> None:
    place = fresh.open()
    item = verbs.submit(place, image_package(fresh.packages / "shade"), OPS)
    lines: list[str] = []
    with contextlib.suppress(LciaError):
        work(place, OPS, lines.append, item.id)
    told = "\n".join([*lines, json.dumps(verbs.status(place), default=str)])
    assert "reads text only; name a base model with an image processor" in told
    assert place.champion() is None
