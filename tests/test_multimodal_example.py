"""The multimodal example: its settings are read by the product, its packages are what the product takes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from components.settings import load_settings
from components.tasks.package import read_package

FOLDER = Path(__file__).parents[1] / "examples" / "multimodal"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_digits", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_recipe_for_coin_is_the_papers(tmp_path):
    settings = load_settings(FOLDER / "llava-1.5-7b-coin.yaml", (), {}, tmp_path)
    adapter, tuning, base = settings.adapter, settings.tuning, settings.base_model
    assert (adapter.rank, adapter.alpha, adapter.dropout) == (128, 256, 0.05)
    assert (adapter.top_layers, adapter.projector) == ("all", True)
    assert adapter.modules == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert (tuning.learning_rate, tuning.projector_learning_rate) == (2e-4, 2e-5)
    assert (tuning.warmup, tuning.decay, tuning.weight_decay) == (0.03, "cosine", 0)
    assert (tuning.batch_size, tuning.max_rows) == (128, None)
    assert (tuning.ema.rule, tuning.rehearsal.share, tuning.pseudo_rehearsal.share) == ("released", 0, 0)
    assert (base.dtype, base.max_tokens) == ("bfloat16", 2048)
    assert (settings.grouping.encoder, settings.grouping.threshold) == ("tfidf", 0.9)


@pytest.mark.parametrize("override", ["tuning.batch_size=160", "tuning.steps=997"])
def test_the_recipe_takes_each_tasks_own_batch_and_length(tmp_path, override):
    assert load_settings(FOLDER / "llava-1.5-7b-coin.yaml", (override,), {}, tmp_path)


def test_the_examples_settings_are_read(tmp_path):
    settings = load_settings(FOLDER / "digits.yaml", (), {}, tmp_path)
    assert settings.grouping.rule == "single"
    assert settings.tuning.ema.rule == "curvature"


def test_the_examples_tasks_are_packages_with_the_right_answers(make, tmp_path):
    images, labels = make._digits(0)
    right = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    own = sum(make.ROWS.values())
    shown: set[str] = set()
    for number, (name, task) in enumerate(make.TASKS.items()):
        start = make.FITTED + number * own
        make._package(tmp_path / name, task, images[start : start + own], labels[start : start + own])
        package = read_package(tmp_path / name)
        assert {split: len(rows) for split, rows in package.splits.items()} == make.ROWS
        for rows in package.splits.values():
            for row in rows:
                digits = [right[picture.pixels()[:, :, 0].astype(np.uint8).tobytes()] for picture in row.images]
                assert row.output == answer(name, digits, make.WORDS)
        digests = {picture.digest for rows in package.splits.values() for row in rows for picture in row.images}
        assert not digests & shown
        shown |= digests


def answer(name: str, digits: list[int], words: tuple[str, ...]) -> str:
    if name == "read_digit":
        return words[digits[0]]
    if name == "even_or_odd":
        return "odd" if digits[0] % 2 else "even"
    return "first" if digits[0] > digits[1] else "second"
