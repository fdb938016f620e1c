"""The gate: rules over the evidence of one candidate, each a row that a person can read.

A drop is reference minus candidate score, so a positive drop is forgetting. Pass needs every one-sided bound of a
drop inside its margin (unadjusted: requiring all is already conservative, an intersection-union test: Berger 1982,
Technometrics 24, 295-300); fail needs a drop beyond its margin with confidence (Holm over all comparisons); anything
between is inconclusive. Where policy holds back a reserve of test rows, a comparison that the other rows leave
inconclusive is made once more over all of them. The k-th candidate compared with an anchor is tested at alpha / k^2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np

from components.evaluation import statistics
from components.evaluation.statistics import Comparison, Scores, StatisticsError
from components.gate.inputs import GateEvidence, GateEvidenceError, NewTask, PriorTask
from components.gate.levels import anchor_level, look_levels
from components.gate.power import LEAST_POWER, Power, TaskRows, level, policy_power
from components.gate.report import GateReport, GateRow, RowVerdict, Verdict
from components.grouping.rewording import Rewording
from components.proportions import wilson_interval
from components.settings import GateSettings


def decide_gate(evidence: GateEvidence, policy: GateSettings) -> GateReport:
    """Judge one candidate.

    Raises:
        GateEvidenceError: scores that do not pair up, out of [0, 1], an attempt below 1, or rows held back that the
            policy does not hold back.
    """
    if evidence.attempt < 1:
        raise GateEvidenceError(f"attempt {evidence.attempt}, expected 1 or more; attempts count from 1")
    if not policy.reserve_share and _reserve_size(evidence.new, evidence.prior):
        raise GateEvidenceError("test rows held back, expected none: policy.gate.reserve_share is 0")
    alpha = level(policy, evidence.attempt)
    early_rows = (
        *(_arrival_rows(evidence, evidence.new, policy) if evidence.new else ()),
        *([_reworded_row(evidence, evidence.rewording, policy)] if evidence.rewording else ()),
        *_fallback_rows(evidence),
        _attempt_row(evidence, policy, alpha),
    )
    any_fail = any(row.verdict == "fail" for row in early_rows)
    compared_rows = _look(evidence, policy, alpha, any_fail=any_fail)
    power = policy_power(_sizes(evidence.prior), policy, evidence.attempt)
    rows = (
        *early_rows,
        *compared_rows,
        *_unmeasured_rows(evidence.prior, policy),
        *_lost_rows(evidence.not_taught),
        *_reserve_rows(evidence, compared_rows, policy),
        *_power_rows(evidence, policy, power),
        *(GateRow("cost", None, "info", value, None, None, None, name) for name, value in evidence.costs),
    )
    verdicts = {row.verdict for row in rows}
    verdict: Verdict = "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"
    return GateReport(verdict, evidence.attempt, alpha, policy.enforce, rows, power)


@dataclass(frozen=True)
class _Paired:
    """Scores of the same rows in two versions; `reserve` is True for rows held back (empty: none)."""

    reference: tuple[float, ...]
    candidate: tuple[float, ...]
    reserve: tuple[bool, ...]

    def at_look(self, look: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Reference and candidate at one look."""
        if look == 2 or not any(self.reserve) or len(self.reserve) != len(self.reference):
            return self.reference, self.candidate
        first = [not later for later in self.reserve]
        return tuple(compress(self.reference, first)), tuple(compress(self.candidate, first))


@dataclass(frozen=True)
class _Test:
    """One drop with its margin: the scores that are compared, and the name of the row."""

    rule: str
    task: str | None
    what: str
    against: str
    limit: float
    alpha: float
    scores: _Paired = field(repr=False)
    prefix: str = ""
    group: str | None = None
    anchor_look: int | None = None

    def row(self, look: int, reserve_share: float) -> tuple[GateRow, float]:
        """The row, not judged yet, and the p-value of a drop beyond the margin."""
        levels = look_levels(self.alpha, reserve_share)
        alpha = levels.second if look == 2 else levels.first
        reference, candidate = self.scores.at_look(look)
        result = _compare(reference, candidate, alpha, self.what)
        words = (
            f"{self.prefix}drop against the {self.against} {result.drop:+.3f} ({result.changed} of {result.rows} rows "
            f"differ), at most {result.high:+.3f} with {1 - alpha:.1%} confidence; allowed {self.limit:.3f}"
        )
        words = f"reserve opened; {words}" if look == 2 else words
        bounds = result.drop, result.low, result.high
        row = GateRow(
            self.rule, self.task, "inconclusive", *bounds, self.limit, words, look, self.group, self.anchor_look
        )
        return row, statistics.p_value(reference, candidate, self.limit)


def _look(evidence: GateEvidence, policy: GateSettings, alpha: float, *, any_fail: bool) -> list[GateRow]:
    """The rows that rest on test rows: the new task's, then all drops.

    The reserve is opened only where a comparison is inconclusive and nothing has failed.
    """
    share = policy.reserve_share
    levels, tests = look_levels(alpha, share), _tests(evidence.prior, policy, alpha)
    new = [_new_task_row(evidence.new, policy, levels.first)] if evidence.new else []
    results = [test.row(1, share) for test in tests]
    rows = _judge([row for row, _ in results], [p for _, p in results], levels.first)
    if any_fail or not levels.second or any(row.verdict == "fail" for row in (*new, *rows)):
        return [*new, *rows]
    if evidence.new and new[0].verdict == "inconclusive" and any(evidence.new.reserve):
        new = [_new_task_row(evidence.new, policy, levels.second, look=2)]
    second = [row.verdict == "inconclusive" and any(test.scores.reserve) for row, test in zip(rows, tests, strict=True)]
    if any(second):
        again = [test.row(2, share) if o else m for test, m, o in zip(tests, results, second, strict=True)]
        final = _judge([row for row, _ in again], [p for _, p in again], levels.second_fail)
        rows = [now if o else before for before, now, o in zip(rows, final, second, strict=True)]
    return [*new, *rows]


def _tests(prior: Sequence[PriorTask], policy: GateSettings, alpha: float) -> list[_Test]:
    """Step and lifetime comparisons of each changed task, then a pooled one per group of two or more."""
    tests: list[_Test] = []
    pools: dict[str, list[PriorTask]] = {}
    for task in prior:
        if not task.is_protected:
            continue
        pools.setdefault(task.group, []).append(task)
        step, life = (_Paired(scores, task.candidate, task.reserve) for scores in (task.champion, task.anchor))
        what = f"prior task {task.name!r} against"
        tests += [
            _Test("step", task.name, f"{what} the champion", "champion", policy.step_margin, alpha, step),
            _Test(
                "lifetime",
                task.name,
                f"{what} its anchor",
                "anchor",
                policy.lifetime_budget,
                anchor_level(alpha, task.look),
                life,
                f"look {task.look} at its anchor: " if task.look > 1 else "",
                anchor_look=task.look,
            ),
        ]
    for group, tasks in pools.items():
        if len(tasks) > 1:
            pair = _Paired(
                tuple(score for task in tasks for score in task.champion),
                tuple(score for task in tasks for score in task.candidate),
                tuple(later for task in tasks for later in task.reserve or (False,) * len(task.candidate)),
            )
            prefix = f"group {group}, {len(tasks)} prior tasks: "
            limit = policy.pooled_margin
            tests.append(_Test("pooled", None, f"group {group} pooled", "champion", limit, alpha, pair, prefix, group))
    return tests


def _unmeasured_rows(prior: Sequence[PriorTask], policy: GateSettings) -> list[GateRow]:
    """A row for each prior task that needs no comparison or allows none."""
    rows = []
    for task in prior:
        if not task.may_differ:
            words = "no prediction changed: the drop against the champion is 0 by proof"
            rows.append(GateRow("unchanged", task.name, "pass", 0.0, 0.0, 0.0, policy.step_margin, words))
        elif not task.candidate:
            words = "keeps no evaluation rows: forgetting of this task is not measurable"
            rows.append(GateRow("not measurable", task.name, "info", None, None, None, None, words))
        elif task.superseded_by is not None:
            drop = float(np.mean(task.champion) - np.mean(task.candidate))
            words = f"replaced by {task.superseded_by}, not protected; drop against the champion {drop:+.3f}"
            by = task.superseded_by
            rows.append(GateRow("superseded", task.name, "info", drop, None, None, None, words, superseded_by=by))
    return rows


def _compare(reference: Scores, candidate: Scores, alpha: float, what: str) -> Comparison:
    try:
        return statistics.compare(reference, candidate, alpha)
    except StatisticsError as error:
        raise GateEvidenceError(f"{what}: {error}") from error


def _judge(rows: Sequence[GateRow], p_values: Sequence[float], alpha: float) -> list[GateRow]:
    """Verdicts: kept where the bound is inside the limit, exceeded where Holm's test at `alpha` says so."""
    verdicts = []
    for row, p in zip(rows, statistics.holm(p_values), strict=True):
        if row.high is not None and row.limit is not None and row.high <= row.limit:
            verdicts.append(replace(row, verdict="pass"))
        elif p <= alpha:
            words = f"{row.words}: exceeded with confidence (Holm p {_p(p)})"
            verdicts.append(replace(row, verdict="fail", words=words))
        else:
            verdicts.append(replace(row, words=f"{row.words}: neither kept nor exceeded with confidence"))
    return verdicts


def _new_task_row(new: NewTask, policy: GateSettings, alpha: float, look: int = 1) -> GateRow:
    """Learnt: better than the champion, or at its owner's target and not below the live weights on validation."""
    candidate, champion = _Paired(new.candidate_test, new.champion_test, new.reserve).at_look(look)
    gain = _compare(candidate, champion, alpha, f"new task {new.name!r} on test")
    short = _compare(new.live_validation, new.candidate_validation, alpha, f"new task {new.name!r} on validation")
    score = float(np.mean(candidate))
    words = "reserve opened; " if look == 2 else ""
    words += f"score {score:.3f}, {gain.drop:+.3f} against the champion (at least {gain.low:+.3f} with confidence)"
    beside = f"below the live weights on validation by {short.drop:+.3f}, at most {short.high:+.3f}"
    verdict: RowVerdict
    if gain.low > 0:
        verdict, words = "pass", f"{words}: learnt"
        if new.target is not None and score < new.target:
            words += f", though below its owner's target {new.target:.3f}"
    elif new.target is not None and score >= new.target and short.high <= policy.new_task_margin:
        verdict, words = "pass", f"{words}; at or above its owner's target {new.target:.3f}; {beside}"
    elif gain.high < 0:
        verdict, words = "fail", f"{words}: worse than the champion{_cut_words(new)}"
    elif short.low > policy.new_task_margin:
        verdict, words = "fail", f"{words}; {beside}: not learnt{_cut_words(new)}"
    else:
        aim = "has no owner's target" if new.target is None else f"the owner's target is {new.target:.3f}"
        verdict = "inconclusive"
        words = f"{words}; {beside}; {aim}: {_no_gain_words(new, candidate, champion)}"
    return GateRow("new task", new.name, verdict, gain.drop, gain.low, gain.high, 0.0, words, look)


def _no_gain_words(new: NewTask, candidate: Scores, champion: Scores) -> str:
    """Why no gain is shown, as far as the scores tell."""
    if _mostly_cut(new):
        return f"nothing shows whether it was learnt{_cut_words(new)}"
    if not any(candidate) and not any(champion):
        return f"no answer scores anything, before or after: metric, references or training do not fit{_cut_words(new)}"
    return f"already known, or too few test rows to show a gain{_cut_words(new)}"


def _mostly_cut(new: NewTask) -> bool:
    """True if most wrong answers did not end."""
    return 2 * new.cut > sum(score < 1 for score in new.candidate_test)


def _cut_words(new: NewTask) -> str:
    """Number of answers that never ended and, if it explains the score, the mend; empty if all ended."""
    if not new.cut:
        return ""
    words = f"; {new.cut} of {len(new.candidate_test)} answers were cut at {new.answer_limit} new tokens"
    if not _mostly_cut(new):
        return words
    return f"{words}: raise decoding.max_new_tokens in task.yaml and submit a new version"


def _lost_rows(tasks: Sequence[str]) -> list[GateRow]:
    """A row for each task that the new base model could not be taught: its forgetting is unknown."""
    words = "no rows of it are kept, so the new base model was not taught it"
    return [GateRow("not taught", name, "inconclusive", None, None, None, None, words) for name in tasks]


def _arrival_rows(evidence: GateEvidence, new: NewTask, policy: GateSettings) -> tuple[GateRow, ...]:
    return _validation_row(evidence), _drift_row(evidence), _routing_row(evidence, new, policy)


def _validation_row(evidence: GateEvidence) -> GateRow:
    verdict: RowVerdict = "fail" if evidence.validation == "refuse" else "pass"
    words = f"data checks: {evidence.validation}"
    return GateRow("validation", None, verdict, None, None, None, None, words, assessment=evidence.validation)


def _drift_row(evidence: GateEvidence) -> GateRow:
    verdict: RowVerdict = "pass"
    words = f"drift: {evidence.drift}"
    if evidence.drift == "extreme" and evidence.drift_accepted:
        words += ", accepted by a person"
    elif evidence.drift == "extreme":
        verdict, words = "inconclusive", f"{words}: a person has to accept it"
    return GateRow("drift", None, verdict, None, None, None, None, words, assessment=evidence.drift)


def _routing_row(evidence: GateEvidence, new: NewTask, policy: GateSettings) -> GateRow:
    share = evidence.routing_share
    verdict: RowVerdict = "pass" if share >= policy.min_routing else "fail"
    words = f"{share:.1%} of the new task's test rows reach its group; needed {policy.min_routing:.1%}"
    return GateRow("routing", new.name, verdict, share, None, None, policy.min_routing, words)


def _reworded_row(evidence: GateEvidence, rewording: Rewording, policy: GateSettings) -> GateRow:
    """Requests in other words: the new task, or a task's new wordings, must not take those of other tasks."""
    others, own = ("earlier tasks", "the new task's") if evidence.new else ("other tasks", "its own")
    interval = wilson_interval(rewording.prior_lost, rewording.prior_of)
    share = rewording.prior_lost / rewording.prior_of if rewording.prior_of else 0.0
    verdict: RowVerdict = "fail" if rewording.prior_of and interval.low > policy.max_rerouted else "pass"
    words = (
        f"{rewording.prior_lost} of {rewording.prior_of} wordings of {others}, each left out in turn, no longer "
        f"reach their group; allowed {policy.max_rerouted:.1%} with confidence. Of {own} {rewording.new_of}, "
        f"{rewording.new_right} reach it; {rewording.let_in} of {rewording.general} general requests reach some task"
    )
    return GateRow("reworded", None, verdict, share, interval.low, interval.high, policy.max_rerouted, words)


def _fallback_rows(evidence: GateEvidence) -> list[GateRow]:
    share, limit = evidence.fallback_share, evidence.fallback_limit
    if share is None:
        return []
    verdict: RowVerdict = "pass" if share <= limit else "fail"
    words = f"{share:.1%} of the EMA updates fell back to a fixed beta; allowed {limit:.1%}"
    return [GateRow("fallback", None, verdict, share, None, None, limit, words)]


def _attempt_row(evidence: GateEvidence, policy: GateSettings, alpha: float) -> GateRow:
    verdict: RowVerdict = "pass" if evidence.attempt <= policy.max_attempts else "fail"
    basis = f" (counted by name and owner over {policy.attempts_window_days:g} days)" if evidence.attempt > 1 else ""
    words = f"attempt {evidence.attempt} of {policy.max_attempts}{basis}, tested at {alpha:.4f} one-sided"
    return GateRow("attempts", None, verdict, float(evidence.attempt), None, None, float(policy.max_attempts), words)


def _sizes(prior: Sequence[PriorTask]) -> list[TaskRows]:
    return [
        TaskRows.of(task.name, task.group, task.anchor, task.champion, task.reserve, task.look)
        for task in prior
        if task.is_protected
    ]


def _reserve_size(new: NewTask | None, prior: Sequence[PriorTask]) -> int:
    """Number of test rows held back."""
    return sum(map(sum, (new.reserve if new else (), *(task.reserve for task in prior))))


def _reserve_rows(evidence: GateEvidence, compared_rows: Sequence[GateRow], policy: GateSettings) -> list[GateRow]:
    """A row that says whether the reserve was opened, and for what; none if policy holds no rows back."""
    size = _reserve_size(evidence.new, [task for task in evidence.prior if task.is_protected])
    if not size:
        return []
    second_looks = [" ".join(filter(None, (row.rule, row.task))) for row in compared_rows if row.look == 2]
    words = f"{size} test rows held back ({policy.reserve_share:.0%} of each task): "
    words += f"opened for {', '.join(second_looks)}" if second_looks else "not opened, the other rows decided"
    return [GateRow("reserve", None, "info", float(bool(second_looks)), None, None, None, words)]


def _power_rows(evidence: GateEvidence, policy: GateSettings, power: Power) -> list[GateRow]:
    """Power at the assumed share of chance flips, and at the share seen where that is larger."""
    if not power.tasks:
        return []
    rows = [GateRow("power", None, "info", power.pass_probability, None, None, LEAST_POWER, power.words)]
    pairs = [
        pair for task in evidence.prior if task.is_protected for pair in zip(task.champion, task.candidate, strict=True)
    ]
    share = sum(before != after for before, after in pairs) / len(pairs)
    if share > power.discordance:
        as_seen = policy_power(_sizes(evidence.prior), policy, evidence.attempt, share)
        words = f"{share:.1%} of the rows differ from the champion, more than assumed. {as_seen.words}"
        rows.append(GateRow("power as seen", None, "info", as_seen.pass_probability, None, None, LEAST_POWER, words))
    return rows


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
