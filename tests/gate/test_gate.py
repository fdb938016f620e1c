import json
from dataclasses import replace

import numpy as np
import pytest

from components.gate.gate import decide_gate
from components.gate.inputs import GateEvidence, GateEvidenceError, NewTask, PriorTask
from components.gate.power import LEAST_POWER, TaskRows, policy_power
from components.gate.report import GateReport
from components.grouping.rewording import Rewording
from components.settings import GateSettings

POLICY = GateSettings()
ROWS = 200


def hits(share: float, rows: int = ROWS) -> tuple[float, ...]:
    right = round(share * rows)
    return (1.0,) * right + (0.0,) * (rows - right)


EIGHTY = hits(0.8)


def flip(scores, lost: int, won: int) -> tuple[float, ...]:
    """The same scores with the first `lost` hits missed and the last `won` misses hit."""
    changed = list(scores)
    for i in range(lost):
        changed[i] = 0.0
    for i in range(won):
        changed[-1 - i] = 1.0
    return tuple(changed)


NEW = NewTask("new", hits(0.1), hits(0.8), hits(0.8, 100), hits(0.8, 100))


def prior(name="old", group="g1", lost=0, won=0, anchor_lost=None, scores=EIGHTY, changed=True) -> PriorTask:
    candidate = flip(scores, lost, won)
    anchor = scores if anchor_lost is None else flip(candidate, 0, anchor_lost)
    return PriorTask(name, "1" * 64, group, scores, anchor, candidate, changed)


def evidence(*tasks: PriorTask, **values) -> GateEvidence:
    given = {"prior": tasks, "new": NEW, "validation": "pass", "drift": "related", "routing_share": 1.0}
    return GateEvidence(**{**given, **values})


def row(report: GateReport, rule: str, task: str | None = None):
    (found,) = [each for each in report.rows if each.rule == rule and task in {None, each.task}]
    return found


def test_first_task_passes_on_its_gain_alone():
    report = decide_gate(evidence(), POLICY)
    assert report.verdict == "pass"
    assert row(report, "new task").value == pytest.approx(0.7)
    assert report.power.tasks == 0
    assert "power" not in {each.rule for each in report.rows}


def test_harmless_flips_pass_and_unchanged_tasks_leave_the_family():
    report = decide_gate(evidence(prior(lost=5, won=5), prior("other", "g2", changed=False)), POLICY)
    assert report.verdict == "pass"
    assert row(report, "step").verdict == "pass"
    assert row(report, "lifetime").limit == POLICY.lifetime_budget
    assert row(report, "unchanged").value == 0
    assert report.power.tasks == 1
    assert not [each for each in report.rows if each.rule == "pooled"]


def test_unchanged_task_may_come_without_scores():
    task = PriorTask("old", "1" * 64, "g1", (), (), (), may_differ=False)
    assert decide_gate(evidence(task), POLICY).verdict == "pass"


def test_clear_forgetting_fails_and_names_the_task():
    report = decide_gate(evidence(prior("kept", lost=2, won=2), prior("lost", lost=60)), POLICY)
    assert report.verdict == "fail"
    assert row(report, "step", "lost").verdict == "fail"
    assert row(report, "step", "kept").verdict == "pass"
    assert "Holm" in row(report, "step", "lost").words


def test_between_is_inconclusive():
    report = decide_gate(evidence(prior(lost=16, won=6)), POLICY)
    assert row(report, "step").verdict == "inconclusive"
    assert report.verdict == "inconclusive"


def test_small_losses_add_up_against_the_anchor():
    task = prior(lost=3, won=3, anchor_lost=35, scores=hits(0.6))
    report = decide_gate(evidence(task), POLICY)
    assert row(report, "step").verdict == "pass"
    assert row(report, "lifetime").verdict == "fail"
    assert report.verdict == "fail"


def test_pooled_margin_is_tighter_than_each_step():
    tasks = [prior(name, lost=7, won=2) for name in ("a", "b", "c", "d")]
    report = decide_gate(evidence(*tasks), POLICY)
    assert {each.verdict for each in report.rows if each.rule == "step"} == {"pass"}
    pooled = row(report, "pooled")
    assert pooled.limit == POLICY.pooled_margin
    assert pooled.value == pytest.approx(5 / 200)
    spread = decide_gate(evidence(*(replace(task, group=task.name) for task in tasks)), POLICY)
    assert not [each for each in spread.rows if each.rule == "pooled"]


def test_graded_scores_use_the_bootstrap():
    generator = np.random.default_rng(0)
    scores = tuple(generator.uniform(0.4, 1.0, ROWS))
    same = PriorTask("rewrite", "1" * 64, "g1", scores, scores, scores, may_differ=True)
    worse = replace(same, candidate=tuple(score - 0.3 for score in scores))
    assert decide_gate(evidence(same), POLICY).verdict == "pass"
    assert decide_gate(evidence(worse), POLICY).verdict == "fail"


def test_task_without_evaluation_rows_is_said_to_be_not_measurable():
    report = decide_gate(evidence(PriorTask("secret", "1" * 64, "g1", (), (), (), may_differ=True)), POLICY)
    assert row(report, "not measurable").verdict == "info"
    assert "not measurable" in row(report, "not measurable").words
    assert report.verdict == "pass"


@pytest.mark.parametrize(
    ("new", "verdict", "words"),
    [
        (NewTask("n", hits(0.8), hits(0.8), hits(0.8, 100), hits(0.8, 100)), "inconclusive", "already known"),
        (NewTask("n", hits(0.8), hits(0.8), hits(0.8, 100), hits(0.8, 100), 0.75), "pass", "owner's target"),
        (NewTask("n", hits(0.8), hits(0.8), hits(0.8, 100), hits(0.8, 100), 0.9), "inconclusive", "0.900"),
        (NewTask("n", hits(0.8), hits(0.6), hits(0.6, 100), hits(0.8, 100)), "fail", "worse"),
        (NewTask("n", hits(0.1), hits(0.1), hits(0.1, 100), hits(0.8, 100)), "fail", "not learnt"),
        (
            NewTask("n", hits(0.1), hits(0.5), hits(0.5, 100), hits(0.8, 100), 0.9),
            "pass",
            "below its owner's target",
        ),
    ],
)
def test_new_task(new, verdict, words):
    report = decide_gate(evidence(new=new), POLICY)
    assert row(report, "new task").verdict == verdict
    assert words in row(report, "new task").words
    assert report.verdict == verdict
    assert "cut at" not in row(report, "new task").words


NOTHING = NewTask("n", hits(0.0), hits(0.0), hits(0.0, 100), hits(0.0, 100))


def new_task_words(new) -> str:
    return row(decide_gate(evidence(new=new), POLICY), "new task").words


def test_answers_that_never_ended_are_named_as_the_cause():
    words = new_task_words(replace(NOTHING, cut=ROWS, answer_limit=32))
    assert f"{ROWS} of {ROWS} answers were cut at 32 new tokens" in words
    assert "raise decoding.max_new_tokens in task.yaml" in words
    assert "already known" not in words
    assert "too few test rows" not in words


def test_a_few_cut_answers_are_counted_and_no_cause():
    known = NewTask("n", hits(0.8), hits(0.8), hits(0.8, 100), hits(0.8, 100), cut=1, answer_limit=32)
    words = new_task_words(known)
    assert f"already known, or too few test rows to show a gain; 1 of {ROWS} answers were cut at 32" in words
    assert "raise" not in words


def test_where_no_answer_scores_nothing_is_called_known():
    words = new_task_words(NOTHING)
    assert "no answer scores anything, before or after" in words
    assert "already known" not in words


def test_a_task_that_was_not_learnt_says_that_its_answers_were_cut():
    fallen = NewTask("n", hits(0.1), hits(0.1), hits(0.1, 100), hits(0.8, 100), cut=ROWS // 2 + 1, answer_limit=16)
    assert f"not learnt; {ROWS // 2 + 1} of {ROWS} answers were cut at 16" in new_task_words(fallen)


@pytest.mark.parametrize(
    ("values", "rule", "verdict"),
    [
        ({"validation": "refuse"}, "validation", "fail"),
        ({"validation": "warn"}, "validation", "pass"),
        ({"drift": "extreme"}, "drift", "inconclusive"),
        ({"drift": "extreme", "drift_accepted": True}, "drift", "pass"),
        ({"routing_share": 0.9}, "routing", "fail"),
        ({"fallback_share": 0.7}, "fallback", "fail"),
        ({"fallback_share": 0.0}, "fallback", "pass"),
        ({"attempt": 4}, "attempts", "fail"),
    ],
)
def test_other_rules(values, rule, verdict):
    report = decide_gate(evidence(**values), POLICY)
    assert row(report, rule).verdict == verdict
    assert report.verdict == verdict


def reworded(lost: int, of: int, let_in: int = 0) -> Rewording:
    return Rewording(
        new_right=9, new_of=10, prior_right=of - lost, prior_of=of, prior_lost=lost, let_in=let_in, general=1600
    )


@pytest.mark.parametrize(
    ("rewording", "verdict"),
    [
        (reworded(0, 0), "pass"),
        (reworded(0, 40), "pass"),
        (reworded(6, 40), "pass"),  # 15 %, but 10 % are within its interval
        (reworded(12, 40), "fail"),
        (reworded(1, 2), "pass"),
        (reworded(0, 40, let_in=1600), "pass"),  # shown, not judged
    ],
)
def test_requests_in_other_words_must_still_reach_earlier_tasks(rewording, verdict):
    report = decide_gate(evidence(rewording=rewording), POLICY)
    found = row(report, "reworded")
    assert (found.verdict, found.limit, report.verdict) == (verdict, POLICY.max_rerouted, verdict)
    assert found.value == pytest.approx(rewording.prior_lost / max(rewording.prior_of, 1))
    assert f"{rewording.prior_lost} of {rewording.prior_of} wordings" in found.words
    assert f"{rewording.let_in} of 1600 general requests" in found.words
    lenient = POLICY.model_copy(update={"max_rerouted": 0.5})
    assert row(decide_gate(evidence(rewording=rewording), lenient), "reworded").verdict == "pass"


def test_evidence_of_earlier_releases_says_nothing_of_other_words():
    assert "reworded" not in {each.rule for each in decide_gate(evidence(), POLICY).rows}


def test_later_attempts_are_tested_harder():
    first, second = (decide_gate(evidence(prior(lost=8, won=5), attempt=k), POLICY) for k in (1, 2))
    assert (first.alpha, second.alpha) == (pytest.approx(0.05), pytest.approx(0.025))
    assert row(second, "step").high > row(first, "step").high
    assert second.power.pass_probability < first.power.pass_probability


def test_default_policy_lets_a_harmless_candidate_through():
    """200 test rows and 5 % chance flips: at least 80 % up to four changed prior tasks in one group."""
    for tasks in (1, 2, 3, 4):
        assert (
            policy_power([TaskRows.typical("old", "g1", ROWS, POLICY)] * tasks, POLICY).pass_probability >= LEAST_POWER
        )
    weak = policy_power([TaskRows.typical("old", "g1", ROWS, POLICY)] * 8, POLICY)
    assert weak.pass_probability < LEAST_POWER
    assert "below 0.80" in weak.words


def test_power_equals_the_share_of_harmless_candidates_that_pass():
    generator = np.random.default_rng(11)
    passed = 0
    for _ in range(150):
        truth = (generator.random(ROWS) < 0.8).astype(float)
        lost, won = generator.multinomial(ROWS, [0.025, 0.025, 0.95])[:2]
        right, wrong = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
        candidate = truth.copy()
        candidate[right[:lost]], candidate[wrong[:won]] = 0, 1
        task = PriorTask("old", "1" * 64, "g1", tuple(truth), tuple(truth), tuple(candidate), may_differ=True)
        passed += row(decide_gate(evidence(task), POLICY), "step").verdict == "pass"
    assert passed / 150 == pytest.approx(0.96, abs=0.05)


def test_power_is_stated_at_the_flips_seen_where_they_are_more_than_assumed():
    calm = decide_gate(evidence(prior(lost=5, won=5)), POLICY)
    noisy = decide_gate(evidence(prior(lost=15, won=15)), POLICY)
    assert not [each for each in calm.rows if each.rule == "power as seen"]
    assert row(noisy, "power as seen").value < noisy.power.pass_probability
    assert "15.0% of the rows differ" in row(noisy, "power as seen").words


def test_a_truly_worse_candidate_rarely_passes():
    """A true drop as large as the margin passes with at most about 5 %."""
    generator = np.random.default_rng(7)
    passed = 0
    for _ in range(200):
        lost, won = generator.multinomial(ROWS, [0.08, 0.02, 0.90])[:2]
        passed += row(decide_gate(evidence(prior(lost=lost, won=min(won, 40))), POLICY), "step").verdict == "pass"
    assert passed / 200 <= 0.09


def test_report_survives_json():
    report = decide_gate(evidence(prior(lost=5, won=5), costs=(("seconds", 12.5),)), POLICY)
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert value["kind"] == "gate"
    assert GateReport.from_json(value) == report


def test_unpaired_scores_and_attempt_zero_are_refused():
    task = replace(prior(), candidate=hits(0.8, 100))
    with pytest.raises(GateEvidenceError, match="'old' against the champion"):
        decide_gate(evidence(task), POLICY)
    with pytest.raises(GateEvidenceError, match="attempt 0"):
        decide_gate(evidence(attempt=0), POLICY)
    with pytest.raises(GateEvidenceError, match="'old' against its anchor"):
        decide_gate(evidence(replace(prior(), anchor=())), POLICY)


def test_the_reserve_is_opened_only_where_the_first_look_is_inconclusive():
    held = tuple(i % 10 < 3 for i in range(ROWS))
    policy = GateSettings(reserve_share=0.3)
    clear = replace(prior("clear", lost=1), reserve=held)
    close = replace(prior("close", "g2", lost=9, won=1), reserve=held)
    report = decide_gate(evidence(clear, close), policy)
    assert row(report, "step", "clear").look == 1
    assert row(report, "step", "close").look == 2
    assert "reserve opened" in row(report, "step", "close").words
    assert row(report, "reserve").words.endswith("opened for step close")
    untouched = decide_gate(evidence(clear), policy)
    assert "not opened" in row(untouched, "reserve").words
    refused = decide_gate(evidence(close, validation="refuse"), policy)
    assert row(refused, "step", "close").look == 1, "nothing is opened for what has failed already"
    with pytest.raises(GateEvidenceError, match="reserve_share is 0"):
        decide_gate(evidence(close), POLICY)


def test_later_looks_at_an_anchor_are_tested_harder():
    first, fourth = (
        decide_gate(evidence(replace(prior(lost=3, won=3, anchor_lost=9, scores=hits(0.6)), look=k)), POLICY)
        for k in (1, 4)
    )
    assert row(fourth, "lifetime").high > row(first, "lifetime").high
    assert row(fourth, "step") == row(first, "step")
    assert "look 4 at its anchor" in row(fourth, "lifetime").words
    assert fourth.power.pass_probability < first.power.pass_probability
