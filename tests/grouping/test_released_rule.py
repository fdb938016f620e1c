"""The grouping rule of the paper's released code, as a plain reference, on the paper's instructions.

The rule: fit TF-IDF with English stop words on each pair of one new and one known instruction, take the cosine,
average over all pairs with a group, choose the best group, and join it from a threshold set per instruction set.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from components.grouping.pool import GroupTask, Pool
from components.grouping.router import decide, extend
from components.settings import GroupingSettings

SETS = json.loads((Path(__file__).parent / "coin_instructions.json").read_text(encoding="utf-8"))
VQA = {"TextVQA", "GQA", "VizWiz", "VQAv2", "OCR-VQA"}
FOUR = [{"ScienceQA"}, VQA, {"ImageNet"}, {"Grounding"}]
FIVE = [{"ScienceQA"}, {"TextVQA", "VizWiz"}, {"ImageNet"}, {"GQA", "VQAv2", "OCR-VQA"}, {"Grounding"}]


def pair_similarity(new: str, known: str, stop_words: str | None = "english") -> float:
    rows = TfidfVectorizer(stop_words=stop_words).fit_transform([new, known]).toarray()
    return float(rows[0] @ rows[1])


def released_groups(
    tasks: Mapping[str, Sequence[str]], threshold: float, stop_words: str | None = "english"
) -> tuple[list[set[str]], dict[str, float]]:
    """The groups, in the order opened, and each task's similarity to the best group when it came."""
    groups: list[set[str]] = []
    codebooks: list[list[str]] = []
    best: dict[str, float] = {}
    for name, texts in tasks.items():
        scores = [np.mean([pair_similarity(t, k, stop_words) for t in texts for k in book]) for book in codebooks]
        chosen = int(np.argmax(scores)) if scores else -1
        best[name] = float(scores[chosen]) if scores else 0.0
        if scores and best[name] >= threshold:
            groups[chosen].add(name)
            codebooks[chosen] += [text for text in texts if text not in codebooks[chosen]]
        else:
            groups.append({name})
            codebooks.append(list(texts))
    return groups, best


def test_origin_gives_the_published_four_groups():
    groups, best = released_groups(SETS["origin"], 0.90)
    assert groups == FOUR
    assert best["ImageNet"] == pytest.approx(0.633, abs=5e-4)
    assert min(best[name] for name in VQA - {"TextVQA"}) == pytest.approx(1)


def test_diverse_gives_the_published_five_groups():
    groups, best = released_groups(SETS["diverse"], 0.30)
    assert groups == FIVE
    assert best["VizWiz"] == pytest.approx(0.450, abs=5e-4)
    assert best["ImageNet"] < 0.30


@pytest.mark.parametrize(
    "wording",
    [
        "Express your answer in a single word or a short, descriptive phrase",
        "What is the object in the image? Express your answer in a single word or a short phrase",
        "What is the object in the image? Provide your answer in a single word or a brief phrase",
    ],
)
def test_diverse_does_not_turn_on_the_uncertain_wording(wording):
    assert released_groups({**SETS["diverse"], "ImageNet": [wording]}, 0.30)[0] == FIVE


def test_its_thresholds_belong_to_the_set():
    """Why ours are calibrated: with the other set's threshold, or without stop words, the groups are others."""
    assert len(released_groups(SETS["origin"], 0.30)[0]) == 3
    assert len(released_groups(SETS["diverse"], 0.90)[0]) == 8
    without = released_groups(SETS["diverse"], 0.30, stop_words=None)[0]
    assert {"TextVQA", "ImageNet"} in without
    assert {"VizWiz"} in without


def test_its_flaws_that_ours_does_not_have():
    with pytest.raises(ValueError, match="empty vocabulary"):
        pair_similarity("What is it about?", "Who are you?")
    varied = ["Answer in one word.", "Name the colour.", "Which of the options fits?"]
    assert np.mean([pair_similarity(a, b) for a in varied for b in varied]) < 0.90


@pytest.mark.parametrize("name", ["origin", "diverse"])
def test_ours_keeps_the_three_kinds_of_work_apart_on_their_instructions(name):
    """Multiple choice, bounding boxes and short answers never share a group; identical instructions always do."""
    settings = GroupingSettings(review_band=0.0)
    pool = Pool.empty("assistant", "b" * 64)
    for i, (task, texts) in enumerate(SETS[name].items()):
        decision = decide(pool, texts, settings)
        pool = extend(
            pool, GroupTask(f"{i:064x}", task, tuple(texts)), group=decision.group if decision.action == "reuse" else
            None, adapter="f" * 64, curvature=None, parent=None, config="c" * 64, settings=settings,
        )  # fmt: skip
    groups = [{entry.name for entry in group.tasks} for group in pool.groups]
    assert {"ScienceQA"} in groups
    assert {"Grounding"} in groups
    if name == "origin":
        assert any(group >= VQA for group in groups)
