import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from components.gate.levels import look_levels, reserve_rows


def test_the_reserve_follows_from_the_rows_alone():
    ids = [f"{i * 7919 % 1000:04d}" for i in range(50)]
    held = reserve_rows(ids, 0.3)
    assert sum(held) == 15
    assert max(i for i, h in zip(ids, held, strict=True) if h) < min(i for i, h in zip(ids, held, strict=True) if not h)
    order = np.random.default_rng(0).permutation(50)
    assert reserve_rows([ids[i] for i in order], 0.3) == tuple(held[i] for i in order)
    assert reserve_rows(ids, 0.0) == (False,) * 50
    assert sum(reserve_rows(["same"] * 10, 0.5)) == 5


def test_without_a_reserve_there_is_one_look_at_the_whole_level():
    assert look_levels(0.05, 0.0).first == 0.05


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("alpha", [0.05, 0.0125])
def test_both_looks_together_err_at_the_level(share, alpha):
    levels = look_levels(alpha, share)
    joint = multivariate_normal([0, 0], [[1, np.sqrt(1 - share)], [np.sqrt(1 - share), 1]])
    both = joint.cdf([norm.ppf(levels.first), norm.ppf(levels.second)])
    assert levels.first + levels.second - both == pytest.approx(alpha, abs=1e-5)
    assert levels.first + levels.second_fail == pytest.approx(alpha)
    assert levels.second > levels.second_fail or share == 0.5
