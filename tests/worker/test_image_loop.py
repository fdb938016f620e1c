"""A task with images through the whole product: assessed, learnt, promoted, asked, withdrawn."""

import contextlib
import json
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from image_packages import SHADES, image_package, seeing_settings
from small_loop import OPS, SECTIONS, SmallLoop, learn, promote
from vision_models import llava

from components.errors import LciaError
from components.storage.objects import ObjectErased
from components.tasks.snapshot import load_snapshot
from lcia.inference import ask
from lcia.instance import Instance
from lcia.operations import audit, retention, status, tasks
from lcia.worker.loop import work

pytestmark = pytest.mark.slow


@pytest.fixture
def seeing(tmp_path: Path) -> SmallLoop:
    """An empty home whose base model sees."""
    base = llava(tmp_path / "llava")
    (tmp_path / "zenml.yaml").write_text(seeing_settings(base, SECTIONS))
    return SmallLoop(tmp_path / "home", tmp_path / "zenml.yaml", tmp_path / "packages")


def test_an_image_task_is_learnt_asked_and_withdrawn(seeing: SmallLoop) -> None:
    instance = seeing.open("retention.grace_hours=0")
    package = image_package(seeing.packages / "shade")
    assert learn(instance, package)["state"] == "candidate"
    promote(instance)
    shown = [package / "images" / "38.png"]
    said = ask.ask(instance, "How light is it?", None, None, base=False, images=shown)
    assert said["answer"] in SHADES
    assert said["group"] == "g1"
    assert ask.ask(instance, "How light is it?", None, None, base=True, images=shown)["version"] is None
    (entry,) = instance.pool(instance.champion().digest).tasks()
    snapshot = load_snapshot(instance.store, entry.task)
    train = {picture.digest for row in snapshot.rows("train") for picture in row.images}
    tested = {picture.digest for row in snapshot.rows("test") for picture in row.images}
    kept = {digest for row in instance.store.get_lines(entry.kept_rows) for digest in row["image"]}
    assert len(kept) == 4

    assert (
        by_mlflow(instance, package)
        == ask.ask(instance, "How light is it?", None, None, base=False, images=shown)["answer"]
    )

    retention.clean(instance, OPS)
    assert {digest for digest in train if instance.store.exists(digest)} == kept
    assert all(instance.store.exists(digest) for digest in tested)
    assert ask.reevaluate(instance, None)["ok"]

    retention.withdraw(instance, "shade", OPS, "no licence")
    for digest in train | tested:
        with pytest.raises(ObjectErased):
            instance.store.get(digest)
    assert audit.verify(instance).ok


def by_mlflow(instance: Instance, package: Path) -> str:
    """The answer of the champion as MLflow loads it."""
    mlflow.set_tracking_uri(instance.settings.registry.tracking_uri)
    model = mlflow.pyfunc.load_model(
        "models:/assistant@champion", model_config={"models": instance.settings.storage.models}
    )
    file = (package / "images" / "38.png").read_bytes()
    frame = pd.DataFrame({"instruction": ["How light is it?"] * 2, "image": [[file], None]})
    return model.predict(frame)["answer"][0]


def test_a_text_only_base_model_stops_an_image_task_with_its_reason(fresh: SmallLoop) -> None:
    instance = fresh.open()
    item = tasks.submit(instance, image_package(fresh.packages / "shade"), OPS)
    lines: list[str] = []
    with contextlib.suppress(LciaError):
        work(instance, OPS, lines.append, item.id)
    told = "\n".join([*lines, json.dumps(status.status(instance), default=str)])
    assert "reads text only; name a base model with an image processor" in told
    assert instance.champion() is None
