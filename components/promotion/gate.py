"""The gate: rules over the evidence of one candidate, each a row that a person can read.

DESIGN section 8. A drop is reference minus candidate score, so a positive drop is forgetting. Pass needs
every one-sided bound of a drop inside its margin (unadjusted: requiring all is already conservative); fail
needs a drop beyond its margin with confidence (Holm over all comparisons); anything between is inconclusive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from components.errors import LciaError
from components.evaluation import statistics
from components.evaluation.statistics import Comparison, Scores, StatisticsError
from components.settings import GateSettings

Verdict = Literal["pass", "fail", "inconclusive"]
RowVerdict = Literal["pass", "fail", "inconclusive", "info"]

ASSUMED_DISCORDANCE = 0.05
"""Share of rows whose hit flips by chance when a harmless candidate is compared with the champion; twice that
with the anchor. Power is stated at this share."""
LEAST_POWER = 0.80
"""A pass probability of a harmless candidate below this is pointed out."""

_POWER_DRAWS = 4_000


class GateEvidenceError(LciaError):
    """Evidence the gate cannot judge: scores that do not pair up or are out of range."""


@dataclass(frozen=True)
class PriorTask:
    """Scores of one earlier task's test rows, row by row in the same order, each in [0, 1].

    `changed` says whether any prediction may differ from the champion's; when False the scores may be empty.
    A changed task with empty scores keeps no evaluation rows: its forgetting is not measurable, and the
    report says so.
    """

    name: str
    task: str
    group: str
    champion: tuple[float, ...]
    anchor: tuple[float, ...]
    candidate: tuple[float, ...]
    changed: bool


@dataclass(frozen=True)
class NewTask:
    """Scores of the task just learnt. Where there is no champion yet, `champion_test` is the base model's."""

    name: str
    champion_test: tuple[float, ...]
    candidate_test: tuple[float, ...]
    candidate_validation: tuple[float, ...]
    live_validation: tuple[float, ...]
    target: float | None = None


@dataclass(frozen=True)
class GateEvidence:
    """Everything the gate looks at. Shares are fractions.

    `drift_accepted`: a person released a task that was held for extreme drift. `routing_share`: share of the
    new task's test rows that the candidate's router sends to its group. `fallback_share` and
    `fallback_limit`: share of EMA updates that fell back to a fixed beta, and `tuning.ema.max_fallback`;
    None where the rule has no fallback. `attempt` counts from 1 per task and parent. `costs`: measured
    seconds or bytes, shown only.
    """

    prior: tuple[PriorTask, ...]
    new: NewTask
    validation: Literal["pass", "warn", "refuse"]
    drift: Literal["known", "related", "new", "extreme"]
    routing_share: float
    fallback_share: float | None = None
    fallback_limit: float = 0.05
    attempt: int = 1
    drift_accepted: bool = False
    costs: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class GateRow:
    """One rule's result; `value`, the one-sided bounds `low` and `high`, and `limit` are fractions."""

    rule: str
    task: str | None
    verdict: RowVerdict
    value: float | None
    low: float | None
    high: float | None
    limit: float | None
    words: str


@dataclass(frozen=True)
class Power:
    """Probability that a candidate with no true change passes the forgetting rules at the present sizes."""

    pass_probability: float
    tasks: int
    discordance: float
    alpha: float
    words: str


@dataclass(frozen=True)
class GateReport:
    """The verdict and its rows."""

    verdict: Verdict
    attempt: int
    alpha: float
    enforced: bool
    rows: tuple[GateRow, ...]
    power: Power

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, finite numbers only."""
        return {"kind": "gate", "schema": 1, **asdict(self), "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read back `to_json`."""
        return cls(
            verdict=value["verdict"],
            attempt=value["attempt"],
            alpha=value["alpha"],
            enforced=value["enforced"],
            rows=tuple(GateRow(**row) for row in value["rows"]),
            power=Power(**value["power"]),
        )


def decide_gate(evidence: GateEvidence, policy: GateSettings) -> GateReport:
    """Judge one candidate.

    Raises:
        GateEvidenceError: scores that do not pair up, out of [0, 1], or an attempt below 1.
    """
    if evidence.attempt < 1:
        raise GateEvidenceError(f"attempt {evidence.attempt}, expected 1 or more; attempts count from 1")
    alpha = level(policy, evidence.attempt)
    forgetting = _forgetting_rows(evidence.prior, policy, alpha)
    power = policy_power(_sizes(evidence.prior), policy, evidence.attempt)
    rows = (
        _validation_row(evidence),
        _drift_row(evidence),
        _routing_row(evidence, policy),
        *_fallback_rows(evidence),
        _attempt_row(evidence, policy, alpha),
        _new_task_row(evidence.new, policy, alpha),
        *forgetting,
        *_power_rows(evidence, policy, power),
        *(GateRow("cost", None, "info", value, None, None, None, name) for name, value in evidence.costs),
    )
    seen = {row.verdict for row in rows}
    verdict: Verdict = "fail" if "fail" in seen else "inconclusive" if "inconclusive" in seen else "pass"
    return GateReport(verdict, evidence.attempt, alpha, policy.enforce, rows, power)


def level(policy: GateSettings, attempt: int) -> float:
    """One-sided error level of attempt k: (1 - confidence) / 2^(k - 1)."""
    return float((1 - policy.confidence) / 2 ** (attempt - 1))


def policy_power(
    groups: Sequence[Sequence[int]],
    policy: GateSettings,
    attempt: int = 1,
    discordance: float = ASSUMED_DISCORDANCE,
) -> Power:
    """Probability that a candidate without any true change passes all forgetting rules.

    `groups` holds, per group with changed predictions, the test rows of each of its changed tasks. Simulated
    with a fixed seed for scores of 0 and 1; flips against the anchor are drawn on their own, at twice the
    discordance.
    """
    alpha = level(policy, attempt)
    generator = np.random.default_rng(0)
    passed = np.ones(_POWER_DRAWS, dtype=np.bool_)
    for sizes in groups:
        lost_all, won_all = np.zeros(_POWER_DRAWS), np.zeros(_POWER_DRAWS)
        for rows in sizes:
            lost, won = statistics.draw_flips(rows, discordance, 0.0, _POWER_DRAWS, generator)
            old_lost, old_won = statistics.draw_flips(rows, min(2 * discordance, 1.0), 0.0, _POWER_DRAWS, generator)
            passed &= statistics.within_margin(lost, won, rows, policy.step_margin, alpha)
            passed &= statistics.within_margin(old_lost, old_won, rows, policy.lifetime_budget, alpha)
            lost_all, won_all = lost_all + lost, won_all + won
        if len(sizes) > 1:
            passed &= statistics.within_margin(lost_all, won_all, sum(sizes), policy.pooled_margin, alpha)
    tasks = sum(len(sizes) for sizes in groups)
    probability = float(passed.mean())
    words = (
        f"A candidate without any true change, {discordance:.0%} of whose hits flip by chance, passes "
        f"the forgetting "
        f"rules on {tasks} changed prior task{'' if tasks == 1 else 's'} with probability {probability:.2f}"
    )
    if probability < LEAST_POWER:
        words += (
            f", below {LEAST_POWER:.2f}: the margins are tight for this many rows; "
            "more test rows or a policy with wider margins, decided before looking, would mend it"
        )
    return Power(probability, tasks, discordance, alpha, words + ".")


def _forgetting_rows(prior: Sequence[PriorTask], policy: GateSettings, alpha: float) -> list[GateRow]:
    """Step, lifetime and pooled rows of changed tasks with their verdicts, then a row for each other task."""
    comparisons: list[tuple[GateRow, float]] = []
    others: list[GateRow] = []
    pools: dict[str, list[PriorTask]] = {}
    for task in prior:
        if not task.changed:
            words = "no prediction changed: the drop against the champion is 0 by proof"
            others.append(GateRow("unchanged", task.name, "pass", 0.0, 0.0, 0.0, policy.step_margin, words))
        elif not task.candidate:
            words = "keeps no evaluation rows: forgetting of this task is not measurable"
            others.append(GateRow("not measurable", task.name, "info", None, None, None, None, words))
        else:
            pools.setdefault(task.group, []).append(task)
            step = _compare(task.champion, task.candidate, alpha, f"prior task {task.name!r} against the champion")
            p = statistics.p_value(task.champion, task.candidate, policy.step_margin)
            comparisons.append((_drop_row("step", task.name, step, policy.step_margin, "champion"), p))
            life = _compare(task.anchor, task.candidate, alpha, f"prior task {task.name!r} against its anchor")
            p = statistics.p_value(task.anchor, task.candidate, policy.lifetime_budget)
            comparisons.append((_drop_row("lifetime", task.name, life, policy.lifetime_budget, "anchor"), p))
    for group, tasks in pools.items():
        if len(tasks) > 1:
            champion = [score for task in tasks for score in task.champion]
            candidate = [score for task in tasks for score in task.candidate]
            pooled = _compare(champion, candidate, alpha, f"group {group} pooled")
            row = _drop_row("pooled", None, pooled, policy.pooled_margin, "champion")
            words = f"group {group}, {len(tasks)} prior tasks: {row.words}"
            p = statistics.p_value(champion, candidate, policy.pooled_margin)
            comparisons.append((replace(row, words=words), p))
    adjusted = statistics.holm([p for _, p in comparisons])
    judged = [_judge(row, p, alpha) for (row, _), p in zip(comparisons, adjusted, strict=True)]
    return judged + others


def _compare(reference: Scores, candidate: Scores, alpha: float, what: str) -> Comparison:
    try:
        return statistics.compare(reference, candidate, alpha)
    except StatisticsError as error:
        raise GateEvidenceError(f"{what}: {error}") from error


def _drop_row(rule: str, task: str | None, result: Comparison, limit: float, reference: str) -> GateRow:
    words = (
        f"drop against the {reference} {result.drop:+.3f} ({result.changed} of {result.rows} rows "
        f"differ), at most "
        f"{result.high:+.3f} with {1 - result.alpha:.1%} confidence; allowed {limit:.3f}"
    )
    return GateRow(rule, task, "inconclusive", result.drop, result.low, result.high, limit, words)


def _judge(row: GateRow, adjusted: float, alpha: float) -> GateRow:
    if row.high is not None and row.limit is not None and row.high <= row.limit:
        return replace(row, verdict="pass")
    if adjusted <= alpha:
        return replace(row, verdict="fail", words=f"{row.words}: exceeded with confidence (Holm p {_p(adjusted)})")
    return replace(row, words=f"{row.words}: neither kept nor exceeded with confidence")


def _new_task_row(new: NewTask, policy: GateSettings, alpha: float) -> GateRow:
    gain = _compare(new.candidate_test, new.champion_test, alpha, f"new task {new.name!r} on test")
    short = _compare(new.live_validation, new.candidate_validation, alpha, f"new task {new.name!r} on validation")
    score = float(np.mean(new.candidate_test))
    words = f"score {score:.3f}, {gain.drop:+.3f} against the champion (at least {gain.low:+.3f} with confidence)"
    beside = f"below the live weights on validation by {short.drop:+.3f}, at most {short.high:+.3f}"
    verdict: RowVerdict
    if gain.low > 0:
        verdict, words = "pass", f"{words}: learnt"
        if new.target is not None and score < new.target:
            words += f", though below its owner's target {new.target:.3f}"
    elif new.target is not None and score >= new.target and short.high <= policy.new_task_margin:
        verdict, words = "pass", f"{words}; at or above its owner's target {new.target:.3f}; {beside}"
    elif gain.high < 0:
        verdict, words = "fail", f"{words}: worse than the champion"
    elif short.low > policy.new_task_margin:
        verdict, words = "fail", f"{words}; {beside}: not learnt"
    else:
        aim = "has no owner's target" if new.target is None else f"the owner's target is {new.target:.3f}"
        verdict = "inconclusive"
        words = f"{words}; {beside}; {aim}: already known, or too few test rows to show a gain"
    return GateRow("new task", new.name, verdict, gain.drop, gain.low, gain.high, 0.0, words)


def _validation_row(evidence: GateEvidence) -> GateRow:
    verdict: RowVerdict = "fail" if evidence.validation == "refuse" else "pass"
    return GateRow("validation", None, verdict, None, None, None, None, f"data checks: {evidence.validation}")


def _drift_row(evidence: GateEvidence) -> GateRow:
    words = f"drift: {evidence.drift}"
    if evidence.drift != "extreme":
        return GateRow("drift", None, "pass", None, None, None, None, words)
    if evidence.drift_accepted:
        return GateRow("drift", None, "pass", None, None, None, None, f"{words}, accepted by a person")
    return GateRow("drift", None, "inconclusive", None, None, None, None, f"{words}: a person has to accept it")


def _routing_row(evidence: GateEvidence, policy: GateSettings) -> GateRow:
    share = evidence.routing_share
    verdict: RowVerdict = "pass" if share >= policy.min_routing else "fail"
    words = f"{share:.1%} of the new task's test rows reach its group; needed {policy.min_routing:.1%}"
    return GateRow("routing", evidence.new.name, verdict, share, None, None, policy.min_routing, words)


def _fallback_rows(evidence: GateEvidence) -> list[GateRow]:
    share, limit = evidence.fallback_share, evidence.fallback_limit
    if share is None:
        return []
    verdict: RowVerdict = "pass" if share <= limit else "fail"
    words = f"{share:.1%} of the EMA updates fell back to a fixed beta; allowed {limit:.1%}"
    return [GateRow("fallback", None, verdict, share, None, None, limit, words)]


def _attempt_row(evidence: GateEvidence, policy: GateSettings, alpha: float) -> GateRow:
    verdict: RowVerdict = "pass" if evidence.attempt <= policy.max_attempts else "fail"
    words = f"attempt {evidence.attempt} of {policy.max_attempts}, tested at {alpha:.4f} one-sided"
    return GateRow("attempts", None, verdict, float(evidence.attempt), None, None, float(policy.max_attempts), words)


def _sizes(prior: Sequence[PriorTask]) -> list[list[int]]:
    sizes: dict[str, list[int]] = {}
    for task in prior:
        if task.changed and task.candidate:
            sizes.setdefault(task.group, []).append(len(task.candidate))
    return list(sizes.values())


def _power_rows(evidence: GateEvidence, policy: GateSettings, power: Power) -> list[GateRow]:
    """Power at the assumed share of chance flips, and at the share seen where that is larger."""
    if not power.tasks:
        return []
    rows = [GateRow("power", None, "info", power.pass_probability, None, None, LEAST_POWER, power.words)]
    pairs = [
        pair for task in evidence.prior if task.changed for pair in zip(task.champion, task.candidate, strict=True)
    ]
    seen = sum(before != after for before, after in pairs) / len(pairs)
    if seen > power.discordance:
        as_seen = policy_power(_sizes(evidence.prior), policy, evidence.attempt, seen)
        words = f"{seen:.1%} of the rows differ from the champion, more than assumed. {as_seen.words}"
        rows.append(GateRow("power as seen", None, "info", as_seen.pass_probability, None, None, LEAST_POWER, words))
    return rows


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
