"""Checks and drift of tasks with images."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.quality.drift import check_drift
from components.quality.drift_report import drift_html, evidently_report
from components.quality.fingerprints import leak_key, load_fingerprints, store_fingerprints
from components.quality.image_samples import STATISTICS, image_measures
from components.quality.validation import Background, validate
from components.quality.validation_report import validation_html
from components.settings import DriftSettings, ValidationSettings
from components.storage.objects import canonical
from components.tasks.images import Picture
from components.tasks.rows import Example

SETTINGS = ValidationSettings(min_rows=5)
DRIFT = DriftSettings()


def picture(number: int, size: tuple[int, int] = (8, 8), light: float = 1.0) -> Picture:
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3)) * light
    made = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(made, "PNG")
    return Picture.of(made.getvalue())


def rows(first: int, count: int, instruction: str = "Name it.", **look: object) -> list[Example]:
    return [
        Example(instruction, None, ("red", "blue")[n % 2], images=(picture(n, **look),))
        for n in range(first, first + count)
    ]


def task_of(snapshot_of, first: int = 0, train=None, test=None, instruction="Name it.", **fields):
    look = fields.pop("look", {})
    train = rows(first, 40, instruction, **look) if train is None else train
    test = rows(first + 800, 20, instruction, **look) if test is None else test
    return snapshot_of(train, rows(first + 600, 10, instruction, **look), test, **fields)


def failed(result) -> dict[tuple[str, str], tuple[int, ...]]:
    return {(check.name, check.split): check.rows for check in result.checks if not check.success}


def test_a_sound_task_passes_and_its_images_are_counted(snapshot_of):
    result = validate(task_of(snapshot_of), [], SETTINGS)
    assert result.verdict == "pass", failed(result)
    assert result.statistics["images"] == {"train": 40, "validation": 10, "test": 20}
    assert {check.name for check in result.checks} >= {"images", "image_duplicates", "image_leaks"}
    assert canonical(result.to_json())


def test_text_tasks_have_no_checks_of_images(example):
    result = validate(example("passive_voice"), [], SETTINGS)
    assert not [check for check in result.checks if check.name.startswith("image")]
    assert "images" not in result.statistics


def test_missing_and_undecodable_images_refuse_the_task(snapshot_of, store):
    task = task_of(snapshot_of, first=2000)
    gone, spoilt = (row.images[0].digest for row in task.rows("train")[3:5])
    store.erase(gone, None)
    Path(store._files.root, "sha256", spoilt[:2], spoilt).write_bytes(b"P6\n8 8\n255\n")
    result = validate(task, [], SETTINGS)
    assert result.verdict == "refuse"
    assert failed(result) == {("images", "train"): (4, 5)}
    check = next(check for check in result.checks if check.name == "images" and check.split == "train")
    assert check.found == (f"ObjectMissing {gone[:12]}", f"ObjectCorrupt {spoilt[:12]}")
    assert gone[:12] in validation_html(result)


def test_an_image_that_comes_again_under_the_same_instruction_is_a_duplicate(snapshot_of):
    train = rows(0, 40)
    train[10:14] = [replace(train[0], input=f"look {n}") for n in range(4)]
    result = validate(task_of(snapshot_of, train=train), [], SETTINGS)
    assert failed(result) == {("image_duplicates", "train"): (11, 12, 13, 14)}
    assert result.verdict == "warn"
    asked = [replace(row, instruction=f"Ask {n % 20}.") for n, row in enumerate(rows(0, 40))]
    assert validate(task_of(snapshot_of, train=asked), [], SETTINGS).verdict == "pass"


def test_images_of_train_in_test_are_leaks(snapshot_of):
    train = rows(0, 40)
    shown = [replace(train[n], input="Once more.") for n in (3, 4)]
    result = validate(task_of(snapshot_of, train=train, test=[*rows(800, 18), *shown]), [], SETTINGS)
    assert failed(result) == {("image_leaks", "test"): (19, 20)}
    result = validate(task_of(snapshot_of, train=train, test=[*rows(800, 19), train[3]]), [], SETTINGS)
    assert {name for name, _ in failed(result)} == {"leaks", "own_leaks", "image_leaks"}
    assert result.verdict == "refuse"
    assert [row.row for row in result.quarantined_rows] == [20]
    reworded = [replace(train[3], instruction="Say what it is.")]
    result = validate(task_of(snapshot_of, train=train, test=[*rows(800, 19), *reworded]), [], SETTINGS)
    assert failed(result) == {("reworded", "test"): (20,)}


def test_the_same_instruction_on_other_images_is_no_leak_across_tasks_but_the_same_image_is(
    snapshot_of, store, tmp_path
):
    earlier = task_of(snapshot_of, 0, name="earlier")
    other = task_of(snapshot_of, 5000)
    assert validate(other, [earlier], SETTINGS).verdict == "pass"
    leaking = task_of(snapshot_of, 5000, test=[*rows(5800, 19), earlier.rows("train")[0]])
    result = validate(leaking, [earlier], SETTINGS)
    assert failed(result) == {("leaks", "test"): (20,)}
    key = leak_key(tmp_path)
    kept = {earlier.digest: store_fingerprints(earlier, key, store)}
    background = Background(own_hashes=store_fingerprints(leaking, key, store), kept_hashes=kept)
    store.erase(earlier.splits["train"].object, "tried")
    gone = type(earlier)(earlier.digest, earlier.task, earlier.splits, store)
    assert failed(validate(leaking, [gone], SETTINGS, background)) == {("leaks", "test"): (20,)}
    hashes = load_fingerprints(store, kept[earlier.digest])
    assert len(set(hashes.questions["train"])) == 40


def test_statistics_are_those_of_the_picture():
    shown = picture(1, size=(12, 6), light=0.5)
    values = {name: statistic(shown) for name, statistic in STATISTICS.items()}
    assert values == {
        "width": 12,
        "height": 6,
        "aspect": 2,
        "brightness": pytest.approx(shown.pixels().mean() / 255),
    }
    assert image_measures([Example("a", None, "b")], [Example("a", None, "b")], 0) == {}


def test_images_alike_are_known_and_others_are_not(snapshot_of):
    first = task_of(snapshot_of, 0, name="first")
    alike = check_drift(task_of(snapshot_of, 3000), [first], DRIFT)
    found = {effect.name: effect for effect in alike.effects}
    assert alike.verdict == "known" or found["image_auc"].high > DRIFT.known_auc
    assert found["image_width_ks"].value == 0
    assert found["image_brightness_ks"].value < 0.4
    dark = check_drift(task_of(snapshot_of, 3000, look={"light": 0.3, "size": (16, 8)}), [first], DRIFT)
    found = {effect.name: effect for effect in dark.effects}
    assert dark.verdict == "related"  # by its instruction alone
    assert found["image_auc"].value == found["question_auc"].value == pytest.approx(1.0)
    for name in ("width", "aspect", "brightness"):
        assert found[f"image_{name}_ks"].value == 1
        assert found[f"image_{name}_psi"].value > 1
    assert found["image_height_ks"].value == 0
    page = drift_html(dark)
    assert "Kolmogorov-Smirnov distance of image brightness" in page
    assert canonical(dark.to_json())


def test_a_task_with_images_is_told_from_one_without(snapshot_of, example):
    result = check_drift(task_of(snapshot_of), [example("passive_voice")], DRIFT)
    found = {effect.name: effect for effect in result.effects}
    assert (result.verdict, found["image_auc"].value, found["input_auc"].value) == ("new", 1.0, 1.0)
    back = check_drift(example("passive_voice"), [task_of(snapshot_of)], DRIFT)
    assert back.verdict == "new"


def test_evidently_shows_the_images(snapshot_of):
    page = evidently_report(task_of(snapshot_of, 3000), [task_of(snapshot_of, 0, name="first")])
    assert "image brightness" in page
    assert "image width" not in evidently_report(
        snapshot_of([Example("a", str(n), "b") for n in range(30)], rows(0, 5), rows(9, 5)), []
    )
