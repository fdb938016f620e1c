import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, norm

from components.quality.two_samples import (
    NOTHING_KNOWN,
    delong_auc,
    instruction_similarities,
    ks_distance,
    stability_index,
    text_auc,
)

SAMPLE = st.lists(st.integers(0, 20).map(float), min_size=2, max_size=30).map(np.array)


def plain_auc(reference, current):
    wins = [(c > r) + 0.5 * (c == r) for r in reference for c in current]
    return sum(wins) / len(wins)


@given(SAMPLE, SAMPLE)
def test_the_area_is_the_share_of_pairs_in_order(reference, current):
    measured = delong_auc(reference, current)
    assert measured.value == pytest.approx(plain_auc(reference, current))
    assert delong_auc(current, reference).value == pytest.approx(1 - measured.value)
    assert 0 <= measured.low <= measured.value <= measured.high <= 1


def test_delong_intervals_cover_the_truth():
    rng, shift = np.random.default_rng(0), 1.0
    truth = norm.cdf(shift / np.sqrt(2))
    intervals = [delong_auc(rng.normal(0, 1, 80), rng.normal(shift, 1, 60)) for _ in range(400)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.92 <= covered <= 0.98


@given(SAMPLE, SAMPLE)
@settings(max_examples=20)
def test_distances_of_lengths(reference, current):
    distance = ks_distance(reference, current, 0)
    assert distance.value == pytest.approx(ks_2samp(reference, current, method="asymp").statistic)
    assert 0 <= distance.low <= distance.value <= distance.high <= 1
    index = stability_index(reference, current, 0)
    assert 0 <= index.low <= index.value <= index.high
    assert stability_index(reference, reference, 0).value == pytest.approx(0)


def test_texts_of_one_source_cannot_be_told_apart_and_others_can():
    rng = np.random.default_rng(1)
    words = ["red", "green", "blue", "house", "tree", "river", "stone"]
    texts = [" ".join(rng.choice(words, 6)) for _ in range(120)]
    same = text_auc(texts[:60], texts[60:], 0)
    assert same.low < 0.5 < same.high
    other = text_auc(texts[:60], [text.replace("r", "q") for text in texts[60:]], 0)
    assert other.low > 0.9
    assert text_auc(texts[:60], texts[60:], 0) == same


def test_too_few_texts_say_nothing():
    assert text_auc(["a"], ["b", "c"], 0) == NOTHING_KNOWN
    assert text_auc(["?", "!"], ["...", "--"], 0).high <= 1


def test_similarity_is_one_for_the_same_paraphrases():
    a = ["Turn it into passive voice.", "Rewrite in the passive."]
    b = ["What is the sentiment of this review?"]
    same, other = instruction_similarities(a, [list(reversed(a)), b])
    assert same == pytest.approx(1)
    assert other < 0.4
    assert instruction_similarities(["你好世界"], [["你好世界"]]) == pytest.approx([1])
