"""Tasks with images learnt one after the other on a tiny multimodal base model: tuning, evaluation, serving."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vision_models import llava

from components.evaluation.forgetting import Forgetting, ParentVersion
from components.evaluation.prediction import Evaluator
from components.grouping.pool import Pool
from components.model.adapters import is_lora
from components.model.prompts import SeesNoImages
from components.model.workbench import Workbench
from components.serving import bundle
from components.serving.assistant import Assistant
from components.settings import (
    AdapterSettings,
    BaseModelSettings,
    EvaluationSettings,
    GroupingSettings,
    Settings,
    StorageSettings,
    TuningSettings,
)
from components.storage.objects import ObjectStore
from components.tasks.images import Picture
from components.tasks.package import Package
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot, load_snapshot, take_snapshot
from components.tasks.task_file import Task
from components.tuning.task import tune_task

COLOURS = {"dark": 30, "grey": 128, "light": 225}
HEADER = {"version": "1", "owner": "demo", "description": "Made up.", "licence": "CC0-1.0"}


def file_of(level: int, seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(-25, 26, (16, 16, 3))
    made = io.BytesIO()
    Image.fromarray((level + noise).clip(0, 255).astype(np.uint8)).save(made, "PNG")
    return made.getvalue()


def rows(first: int, count: int, instruction: str) -> tuple[Example, ...]:
    names = list(COLOURS)
    return tuple(
        Example(instruction, None, names[n % 3], images=(Picture.of(file_of(COLOURS[names[n % 3]], first + n)),))
        for n in range(count)
    )


@pytest.fixture
def image_task(store: ObjectStore) -> Callable[..., Snapshot]:
    def take(name: str, instruction: str, first: int, **fields: Any) -> Snapshot:
        task = Task.model_validate(
            {**HEADER, "name": name, "choices": list(COLOURS), "retention": {"train_rows": 6}, **fields}, strict=False
        )
        splits = {
            "train": rows(first, 24, instruction),
            "validation": rows(first + 100, 6, instruction),
            "test": rows(first + 200, 9, instruction),
        }
        return load_snapshot(store, take_snapshot(Package(Path(), task, splits, ()), store).digest)

    return take


@pytest.fixture(scope="session")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def settings_with(eyes: Path, tmp_path: Path) -> Callable[..., Settings]:
    def made(projector: bool = False, **tuning: Any) -> Settings:
        return Settings(
            base_model=BaseModelSettings(name=str(eyes), device="cpu", threads=1),
            adapter=AdapterSettings(rank=4, alpha=8, top_layers=2, projector=projector),
            grouping=GroupingSettings(rule="single"),
            storage=StorageSettings(models=str(tmp_path / "models"), objects=f"file://{tmp_path}/objects"),
            evaluation=EvaluationSettings(validation_rows=3, recheck_rows=3),
            tuning=TuningSettings.model_validate(
                {"steps": 30, "batch_size": 4, "learning_rate": 0.02, "checkpoint_every": 10, "ema": {"fisher_rows": 4}}
                | tuning
            ),
        )

    return made


def learn(store: ObjectStore, settings: Settings, champion: ParentVersion | None, snapshot: Snapshot) -> ParentVersion:
    bench = Workbench.load(settings)
    champion = champion or ParentVersion(None, Pool.empty("assistant", bench.base.digest), None)
    group = champion.pool.groups[0].id if champion.pool.groups else None
    tuning = tune_task(store, settings, bench, snapshot, champion.pool, group, snapshot.digest)
    evaluator = Evaluator(bench.trunk, bench.slot, 4)
    config = store.put_json(settings.content())
    record = store.get_json(
        Forgetting(store, settings, evaluator, champion, snapshot).run(store.get_json(tuning), config)
    )
    return ParentVersion(record["pool"], Pool.from_manifest(store.get_json(record["pool"])), record)


@pytest.mark.parametrize("projector", [False, True])
def test_image_tasks_are_learnt_measured_and_answered(store, settings_with, image_task, tmp_path, projector):
    settings = settings_with(projector)
    first = image_task("shade", "How light is it?", 0)
    second = image_task("tone", "Name the tone.", 1000, decoding={"mode": "choose"})
    champion = learn(store, settings, None, first)
    assert champion.evaluation["scores"]["shade"] > 0.6, "a random model guesses a third"
    champion = learn(store, settings, champion, second)
    scores = champion.evaluation["scores"]
    assert scores.keys() == {"shade", "tone"}
    (entry, other) = champion.pool.tasks()
    kept = store.get_lines(entry.kept_rows)
    assert len(kept) == 6
    assert all(len(row["image"]) == 1 for row in kept)
    assert other.name == "tone"

    tensors = bundle.from_store(store, champion.digest).adapters["g1"]
    assert any(not is_lora(name) for name in tensors) == projector
    bundle.write(store, champion.digest, tmp_path / "out")
    again = bundle.read(tmp_path / "out", champion.digest)
    bench = Workbench.load(settings)
    assistant = Assistant(bench, again)
    requests = [(row.instruction, row.input, row.images) for row in first.rows("test")]
    answers = [answer.text for answer in assistant.answer(requests)]
    stored = store.get_json(champion.evaluation["predictions"]["shade"])["rows"]
    assert answers == [row["text"].strip() for row in stored]
    chosen = assistant.answer([("Name the tone.", None, second.rows("test")[0].images)])[0]
    assert chosen.text == store.get_json(champion.evaluation["predictions"]["tone"])["rows"][0]["text"]
    assert assistant.answer([("How light is it?", None)])[0].group == "g1"  # without an image it answers as well


def test_prediction_keys_hold_the_images(store, settings_with, image_task):
    bench = Workbench.load(settings_with())
    task = image_task("shade", "How light is it?", 0)
    evaluator = Evaluator(bench.trunk, bench.slot, 4)
    queries = [evaluator.query(task.task, row, None) for row in task.rows("test")]
    assert len({query.key for query in queries}) == len(queries)
    same = evaluator.query(task.task, task.rows("test")[0], None)
    assert same.key == queries[0].key


def test_an_interrupted_tuning_ends_in_the_same_adapter(store, settings_with, image_task):
    task = image_task("shade", "How light is it?", 0)
    settings = settings_with(True, steps=12, checkpoint_every=5, projector_learning_rate=0.002)
    bench = Workbench.load(settings)
    pool = Pool.empty("assistant", bench.base.digest)
    whole = store.get_json(tune_task(store, settings, bench, task, pool, None, "whole"))

    class Stopped(Exception):
        pass

    def stop(phase: str, done: int, total: int) -> None:
        nonlocal steps
        steps += done if phase == "tune" else 0
        if steps == 7:
            raise Stopped

    steps = 0
    with pytest.raises(Stopped):
        tune_task(store, settings, bench, task, pool, None, "cut", stop)
    steps = -100
    assert store.get_json(tune_task(store, settings, bench, task, pool, None, "cut", stop))["points"] == whole["points"]


def test_parts_of_a_batch_add_up_to_its_step(store, settings_with, image_task):
    task = image_task("shade", "How light is it?", 0)
    pools = []
    for size in (None, 1, 3):
        settings = settings_with(steps=4, rows_per_pass=size)
        bench = Workbench.load(settings)
        pool = Pool.empty("assistant", bench.base.digest)
        digest = store.get_json(tune_task(store, settings, bench, task, pool, None, f"by {size}"))["points"]["live"]
        pools.append(bench.slot.fetch(store, digest))
    for tensors in pools[1:]:
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, pools[0][name], rtol=1e-3, atol=1e-4)


def test_the_projector_has_a_learning_rate_of_its_own(store, settings_with, image_task):
    task = image_task("shade", "How light is it?", 0)
    moved = []
    for rate in (None, 1e-6):
        settings = settings_with(True, steps=3, projector_learning_rate=rate, decay="cosine")
        bench = Workbench.load(settings)
        pool = Pool.empty("assistant", bench.base.digest)
        digest = store.get_json(tune_task(store, settings, bench, task, pool, None, f"rate {rate}"))["points"]["live"]
        tensors = bench.slot.fetch(store, digest)
        whole = [name for name in tensors if not is_lora(name)]
        moved.append(max((tensors[name] - bench.slot._original[name]).abs().max().item() for name in whole))
    assert moved[1] < 1e-5 < 1e-3 < moved[0]


def test_text_tasks_are_learnt_on_a_multimodal_base_model(store, settings_with, take_example):
    champion = learn(
        store, settings_with(steps=6), None, take_example("movie_sentiment", train=8, validation=4, test=4)
    )
    assert champion.evaluation["scores"].keys() == {"movie_sentiment"}


def test_image_tasks_are_refused_on_a_text_only_base_model(store, tiny_bench, tiny_settings, image_task):
    task = image_task("shade", "How light is it?", 0)
    pool = Pool.empty("assistant", tiny_bench.base.digest)
    with pytest.raises(SeesNoImages, match="reads text only"):
        tune_task(store, tiny_settings, tiny_bench, task, pool, None, "x")


def test_recalled_rows_show_the_new_tasks_images(store, settings_with, image_task):
    settings = settings_with(steps=4, rehearsal={"share": 0}, pseudo_rehearsal={"share": 0.5, "rows": 4})
    champion = learn(store, settings, None, image_task("shade", "How light is it?", 0))
    bench = Workbench.load(settings)
    second = image_task("tone", "Name the tone.", 1000)
    record = store.get_json(tune_task(store, settings, bench, second, champion.pool, "g1", "recall"))
    assert record["recalled_rows"] == 4
    assert record["rehearsed_rows"] == 0
