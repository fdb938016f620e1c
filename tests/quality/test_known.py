import numpy as np
import pytest

from components.quality.known import ChampionScore, judge_known
from components.settings import KnownSettings

SETTINGS = KnownSettings()


def score(value, rows=100, other=None, other_rows=200):
    return ChampionScore(value, rows, "earlier@1" if other is not None else None, other, other_rows if other else 0)


@pytest.mark.parametrize(
    ("champion", "drift", "target", "known"),
    [
        (score(1.0), "new", 0.9, True),  # Wilson, one-sided: at least .974
        (score(0.90), "known", 0.9, False),  # as good as the target is not shown to be so
        (score(0.5), "known", 0.9, False),
        (score(0.95, other=0.5), "known", 0.99, False),  # the owner's target decides, nothing else
        (score(0.95, other=0.95), "known", None, True),
        (score(0.80, other=0.95), "known", None, False),
        (score(0.95, other=0.95), "related", None, False),  # good, but nobody said how good is enough
        (score(0.95), "known", None, False),
        (score(0.95, rows=10, other=0.95), "known", None, False),  # too few rows to tell
        (None, "known", 0.1, False),
    ],
)
def test_what_counts_as_known(champion, drift, target, known):
    found = judge_known(champion, "no model here", drift, target, SETTINGS)
    assert found.is_known is known
    assert found.words
    if champion is None:
        assert "no model here" in found.words
    else:
        assert ChampionScore.from_json(champion.to_json()) == champion


def test_a_comparison_with_erased_predictions_is_said_to_be_left_out():
    champion = ChampionScore(0.95, 100, "earlier@1", None, 0)
    found = judge_known(champion, "", "known", None, SETTINGS)
    assert not found.is_known
    assert "not checked against its score on earlier@1" in found.words
    assert "not checked" not in judge_known(champion, "", "related", None, SETTINGS).words


def test_a_task_done_worse_by_the_margin_is_called_known_one_time_in_twenty():
    rng = np.random.default_rng(0)
    truth = 0.9
    called = 0
    for _ in range(2000):
        new, old = rng.binomial(100, truth - SETTINGS.margin) / 100, rng.binomial(200, truth) / 200
        called += judge_known(score(new, other=old), "", "known", None, SETTINGS).is_known
    assert called / 2000 <= 0.065
    hits = rng.binomial(100, 0.9, 2000) / 100
    assert np.mean([judge_known(score(h), "", "new", 0.9, SETTINGS).is_known for h in hits]) <= 0.065
