from collections import Counter

import numpy as np
import pytest

from components.gate.gate import decide_gate
from components.gate.inputs import GateEvidence, NewTask, PriorTask
from components.gate.power import LEAST_POWER, TaskRows, combine, harmless, judge, level, policy_power, rows_needed
from components.settings import GateSettings

POLICY = GateSettings()
HELD_BACK = GateSettings(reserve_share=0.3)
NEW = NewTask("new", (0.0,) * 60, (1.0,) * 60, (1.0,) * 60, (1.0,) * 60)


def scores_of(parts, flipped):
    """Anchor, champion, candidate and reserve mask of one draw, row by row: what `combine` counts."""
    anchor, champion, candidate, reserve = [], [], [], []
    for look in (0, 1):
        for cell, (a, c) in enumerate(((1, 1), (1, 0), (0, 1), (0, 0))):
            rows, turned = int(parts[look][cell]), int(flipped[look][cell])
            anchor += [float(a)] * rows
            champion += [float(c)] * rows
            candidate += [float(1 - c)] * turned + [float(c)] * (rows - turned)
            reserve += [look == 1] * rows
    return tuple(anchor), tuple(champion), tuple(candidate), tuple(reserve)


@pytest.mark.parametrize("policy", [POLICY, HELD_BACK])
@pytest.mark.parametrize("attempt", [1, 2])
def test_deciding_many_candidates_at_once_equals_the_gate(policy, attempt):
    """Several tasks in two groups, from harmless to harmful, each draw put to `decide_gate` row by row."""
    draws, seen = 30, Counter()
    generator = np.random.default_rng(attempt)
    for harm in (0.0, 0.05, 0.15):
        flips, every = [], []
        for name, group, n in (("a", "g1", 150), ("b", "g1", 300), ("c", "g2", 250)):
            held = round(policy.reserve_share * n)
            parts = np.array([generator.multinomial(k, [0.75, 0.01, 0.02, 0.22]) for k in (n - held, held)])
            chance = np.array([0.02 + harm, 0.06, 0.02 + harm, 0.06])[:, None]
            flipped = generator.binomial(parts[..., None], chance, size=(2, 4, draws))
            flips.append(combine(group, parts, flipped))
            every.append((name, group, parts, flipped))
        passed, failed = judge(flips, policy, level(policy, attempt))
        for i in range(draws):
            prior = []
            for name, group, parts, flipped in every:
                anchor, champion, candidate, reserve = scores_of(parts, flipped[:, :, i])
                prior.append(PriorTask(name, "1" * 64, group, champion, anchor, candidate, True, reserve))
            evidence = GateEvidence(tuple(prior), NEW, "pass", "new", 1.0, attempt=attempt)
            report = decide_gate(evidence, policy)
            expected = "pass" if passed[i] else "fail" if failed[i] else "inconclusive"
            looks = max(row.look for row in report.rows)
            seen[expected, looks] += 1
            assert report.verdict == expected
    assert {"pass", "fail", "inconclusive"} == {verdict for verdict, _ in seen}
    assert any(looks == 2 for _, looks in seen) == (policy is HELD_BACK)


def test_flips_against_anchor_and_champion_hang_together():
    """Champion = anchor: every flip counts against both. A row the champion lost can be won back."""
    fresh = harmless(TaskRows("t", "g", (160, 0, 0, 40)), 0.05, 100, np.random.default_rng(0))
    assert (fresh.step == fresh.life).all()
    used = TaskRows("t", "g", (150, 10, 0, 40))
    drawn = harmless(used, 0.05, 4000, np.random.default_rng(0))
    drop = drawn.life[0] - drawn.life[1] - (drawn.step[0] - drawn.step[1])
    assert (drop == 10).all()
    assert drawn.step[0].mean() == pytest.approx(5, abs=0.2)
    assert drawn.step[1].mean() == pytest.approx(5, abs=0.2)


def test_a_champion_at_the_ceiling_has_nothing_to_win_and_flips_less():
    drawn = harmless(TaskRows("t", "g", (198, 0, 0, 2)), 0.05, 4000, np.random.default_rng(0))
    assert 1.5 < drawn.step[0].mean() < 3
    assert policy_power([TaskRows("t", "g", (200, 0, 0, 0))], POLICY).pass_probability > 0.99


def test_a_budget_partly_used_up_lowers_the_power():
    powers = [
        policy_power([TaskRows("t", "g", (160 - lost, lost, 0, 40))], POLICY).pass_probability for lost in (0, 8, 16)
    ]
    assert powers == sorted(powers, reverse=True)
    assert powers[2] < 0.2 < LEAST_POWER < powers[0]


def test_graded_scores_count_as_hits_from_one_half_on():
    rows = TaskRows.of("t", "g", [1, 0.6, 0.2, 0], [0.5, 0.4, 0.9, 0], [False, True, False, True])
    assert rows.first == (1, 0, 1, 0)
    assert rows.reserve == (0, 1, 0, 1)


def test_the_rows_needed_are_enough_and_not_many_too_many():
    for tasks in (1, 3):
        needed = rows_needed(tasks, POLICY)
        power = [
            policy_power([TaskRows.typical("t", "g", n, POLICY)] * tasks, POLICY).pass_probability
            for n in (needed, needed + 10, needed - 30)
        ]
        assert min(power[:2]) >= LEAST_POWER > power[2]
    assert rows_needed(5, POLICY) > rows_needed(1, POLICY)
    assert rows_needed(1, POLICY, 0.1) > rows_needed(1, POLICY)
    assert rows_needed(1, GateSettings(step_margin=0, pooled_margin=0)) is None


def test_a_reserve_costs_a_harmless_candidate_little_and_keeps_the_level():
    """All rows at once pass it most often; with a reserve a drop as large as the margin passes no more often."""
    fresh = TaskRows.typical("t", "g", 200, HELD_BACK)
    at_once = TaskRows.typical("t", "g", 200, POLICY)
    harmless_passes = [policy_power([t], p).pass_probability for t, p in ((at_once, POLICY), (fresh, HELD_BACK))]
    assert harmless_passes[0] > harmless_passes[1] > harmless_passes[0] - 0.05
    generator = np.random.default_rng(5)
    parts = np.array([fresh.first, fresh.reserve])
    chance = np.array([0.085 / 0.8, 0.025 / 0.2] * 2)[:, None]
    flips = combine("g", parts, generator.binomial(parts[..., None], chance, size=(2, 4, 40_000)))
    passed, _ = judge([flips], HELD_BACK, 0.05)
    assert passed.mean() <= 0.05
