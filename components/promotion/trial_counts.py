"""Counts of a trial: what gateways report, the rules that stop it by itself, and the record that it leaves.

Counts are cumulative since a gateway began the trial, so that a report which arrives twice changes nothing. A request
counts when its answer ends, with all that was wrong with it; a rating counts when it comes. In a shadow trial a pair
counts when both answers have ended.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.gate.sequential import SequentialTest, threshold
from components.promotion.replicas import ReportRefused
from components.promotion.trial_rows import RULES, SHADOW, Trial
from components.settings.gateway import TrialSettings
from components.storage.objects import Json

BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, None)
"""Upper bounds in seconds of the buckets that durations of answers are counted in; None: no bound."""
MOST = 10**9
"""Largest count of a report."""
MOST_CHANGED = 500
"""Changed answers that are kept of one trial."""

Count: TypeAlias = Annotated[int, Field(strict=True, ge=0)]
Two: TypeAlias = tuple[Count, Count]
"""Pairs that are bad for the candidate alone, and for the champion alone."""
Durations: TypeAlias = Annotated[tuple[Count, ...], Field(min_length=len(BUCKETS), max_length=len(BUCKETS))]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Arm(_Part):
    """Answers of one version."""

    requests: Count = 0
    errors: Count = 0
    slow: Count = 0
    none_routed: Count = 0
    """Requests that no group was near enough to answer."""
    rated: Count = 0
    """Answers that users rated, in either way."""
    complaints: Count = 0
    """Those rated badly."""

    @model_validator(mode="after")
    def _fits(self) -> "Arm":
        if max(self.errors, self.slow, self.none_routed) > self.requests or self.complaints > self.rated:
            raise ValueError("more bad answers than answers")
        return self

    def of(self, rule: str) -> tuple[int, int]:
        """Bad answers by a rule, and those that could have been."""
        return getattr(self, rule), self.rated if rule == "complaints" else self.requests


class Pairs(_Part):
    """Requests that both versions answered."""

    compared: Count = 0
    agreed: Count = 0
    """Pairs with the same answer."""
    errors: Two = (0, 0)
    slow: Two = (0, 0)
    none_routed: Two = (0, 0)

    @model_validator(mode="after")
    def _fits(self) -> "Pairs":
        if max(self.agreed, sum(self.errors), sum(self.slow), sum(self.none_routed)) > self.compared:
            raise ValueError("more pairs that agree or differ than were compared")
        return self


class Arms(_Part):
    """Both versions."""

    champion: Arm = Arm()
    candidate: Arm = Arm()


class Latency(_Part):
    """Answers by duration, see `BUCKETS`."""

    champion: Durations = (0,) * len(BUCKETS)
    candidate: Durations = (0,) * len(BUCKETS)


class TrialCounts(_Part):
    """All counts of a trial, of one gateway or of several together."""

    counts: Arms = Arms()
    pairs: Pairs | None = None
    latency: Latency = Latency()

    def plus(self, other: "TrialCounts") -> "TrialCounts":
        """Both together."""
        return TrialCounts.model_validate(_combine(*_alike(self, other), 1))

    def minus(self, before: "TrialCounts") -> "TrialCounts":
        """The batch that came after `before`.

        Raises:
            ReportRefused: a count became smaller, or more answers turned bad than were given.
        """
        try:
            return TrialCounts.model_validate(_combine(*_alike(self, before), -1))
        except ValidationError as error:
            raise ReportRefused(
                "the report's counts don't follow the last one's; expected counts that only grow, with every bad "
                f"answer in the report of its request ({_first(error)}). A restarted gateway reports under a new name"
            ) from error


class ChangedAnswer(_Part):
    """One request that the two versions answered differently; texts with personal data masked."""

    id: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9_.:-]+$")]
    champion: Annotated[str, Field(max_length=20_000)]
    candidate: Annotated[str, Field(max_length=20_000)]


class TrialReport(TrialCounts):
    """A gateway's report on a trial."""

    id: Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
    changed: Annotated[tuple[ChangedAnswer, ...], Field(max_length=MOST_CHANGED)] = ()

    @property
    def total(self) -> TrialCounts:
        """The counts alone."""
        return TrialCounts(counts=self.counts, pairs=self.pairs, latency=self.latency)


def read_report(value: Mapping[str, Json]) -> TrialReport:
    """A report from outside, checked.

    Raises:
        ReportRefused: it has another form, or counts that no trial can have.
    """
    try:
        report = TrialReport.model_validate(dict(value))
    except ValidationError as error:
        raise ReportRefused(f"the report on a trial is refused: {_first(error)}") from error
    arms, durations = report.counts, report.latency
    if max(_numbers(report.total.model_dump(mode="json"))) > MOST:
        raise ReportRefused(f"the report on trial {report.id} has a count beyond {MOST}, which no gateway reaches")
    for arm, times in ((arms.champion, durations.champion), (arms.candidate, durations.candidate)):
        if sum(times) > arm.requests:
            raise ReportRefused(
                f"the report on trial {report.id} has {sum(times)} durations of {arm.requests} requests; expected at "
                "most one for each"
            )
    if report.pairs is not None and report.pairs.compared > min(arms.champion.requests, arms.candidate.requests):
        raise ReportRefused(f"the report on trial {report.id} compares more pairs than either version answered")
    return report


def need_kind(report: TrialReport, trial: Trial) -> None:
    """Refuse a report of another kind of trial.

    Raises:
        ReportRefused: pairs of a canary, none of a shadow, or ratings of answers that nobody saw.
    """
    if (report.pairs is not None) != (trial.kind == SHADOW):
        raise ReportRefused(f"trial {trial.id} is a {trial.kind}; expected pairs of a shadow alone")
    if trial.kind == SHADOW and report.counts.candidate.rated:
        raise ReportRefused(f"trial {trial.id} is a shadow, whose answers nobody sees; expected no ratings of them")


def fresh_tests(kind: str, rules: TrialSettings) -> dict[str, Json]:
    """State of the tests before the first report."""
    return {rule: SequentialTest(rules.tolerance, rules.together).to_json() for rule in RULES[kind]}


def tests_after(trial: Trial, batch: TrialCounts) -> dict[str, SequentialTest]:
    """Tests of a trial after one more batch."""
    return {rule: _after(SequentialTest.of_json(trial.tests[rule]), rule, batch) for rule in RULES[trial.kind]}


def _after(test: SequentialTest, rule: str, batch: TrialCounts) -> SequentialTest:
    if batch.pairs is not None:
        candidate_only, champion_only = getattr(batch.pairs, rule)
        return test.paired(candidate_only, champion_only)
    (k1, n1), (k0, n0) = batch.counts.candidate.of(rule), batch.counts.champion.of(rule)
    return test.unpaired(n1, k1, n0, k0)


def limit(trial: Trial) -> float:
    """E-value at which a rule stops this trial."""
    return threshold(trial.rules["level"], len(RULES[trial.kind]))


def stopping(trial: Trial, tests: Mapping[str, SequentialTest]) -> str | None:
    """The first rule whose evidence is enough to stop; None if none is."""
    return next((rule for rule, test in tests.items() if test.reaches(limit(trial))), None)


def rules_of(trial: Trial, total: TrialCounts) -> list[dict[str, Json]]:
    """Each rule with its evidence, the threshold, and the counts of both versions."""
    return [_rule(trial, total, rule, SequentialTest.of_json(trial.tests[rule])) for rule in RULES[trial.kind]]


def _rule(trial: Trial, total: TrialCounts, rule: str, test: SequentialTest) -> dict[str, Json]:
    (k1, n1), (k0, n0) = total.counts.candidate.of(rule), total.counts.champion.of(rule)
    return {
        "rule": rule,
        "e": test.e,
        "threshold": limit(trial),
        "near": test.nearness(limit(trial)),
        "candidate": {"bad": k1, "of": n1},
        "champion": {"bad": k0, "of": n0},
        "alone": list(getattr(total.pairs, rule)) if total.pairs is not None else None,
        "stopped": trial.cause == rule,
    }


def figures(trial: Trial, total: TrialCounts) -> dict[str, Json]:
    """Counts, agreement, durations and rules, as records and people have them."""
    pairs = total.pairs
    return {
        "counts": total.counts.model_dump(mode="json"),
        "pairs": None if pairs is None else pairs.model_dump(mode="json"),
        "agreement": pairs.agreed / pairs.compared if pairs is not None and pairs.compared else None,
        "latency": {
            "champion": _durations(total.latency.champion),
            "candidate": _durations(total.latency.candidate),
        },
        "rules": rules_of(trial, total),
    }


def _durations(counts: Durations) -> dict[str, Json]:
    """Counts by bucket, and upper bounds in seconds of quantiles; null: beyond the last bound, or no answer yet."""
    quantiles = {name: quantile(counts, share) for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    return {"buckets": list(counts), "answers": sum(counts), **quantiles}


def quantile(counts: Iterable[int], share: float) -> float | None:
    """Upper bound of the bucket in which a share of all answers has ended; None: beyond the last bound, or none yet."""
    counts = tuple(counts)
    need, so_far = share * sum(counts), 0
    for count, bound in zip(counts, BUCKETS, strict=True):
        so_far += count
        if so_far and so_far >= need:
            return bound
    return None


def record_of(trial: Trial, total: TrialCounts, replicas: int, until: datetime) -> dict[str, Json]:
    """The object that an ended trial leaves; `until`: its end. Free texts stand under `people`, which name no object.

    `trial` has its end already, but for the record.
    """
    return {
        "kind": "trial",
        "schema": 1,
        "assistant": trial.assistant,
        "trial": trial.id,
        "mode": trial.kind,
        "share": trial.share,
        "candidate": trial.candidate,
        "evidence": trial.evidence,
        "parent": trial.champion,
        "epoch": trial.epoch,
        "from": trial.started_at.isoformat() if trial.started_at else None,
        "to": until.isoformat(),
        "cause": trial.cause,
        "settings": trial.rules,
        "replicas": replicas,
        **figures(trial, total),
        "answers": trial.answers,
        "answers_until": trial.answers_until.isoformat() if trial.answers_until else None,
        "people": {
            "asked": {"by": trial.asked_by, "reason": trial.reason},
            "approved": {"by": trial.approved_by, "reason": trial.approval} if trial.approved_by else None,
            "ended": {"by": trial.ended_by, "reason": trial.why},
        },
    }


def _alike(first: TrialCounts, second: TrialCounts) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of two counts in one form: where one has pairs, the other gets empty ones."""
    one, other = first.model_dump(mode="json"), second.model_dump(mode="json")
    if one["pairs"] or other["pairs"]:
        empty = Pairs().model_dump(mode="json")
        return {**one, "pairs": one["pairs"] or empty}, {**other, "pairs": other["pairs"] or empty}
    return one, other


def _combine(first: Any, second: Any, sign: int) -> Any:  # noqa: ANN401 - any part of the counts
    """Sum or difference of all numbers of two values of one form."""
    if isinstance(first, dict):
        return {name: _combine(part, second[name], sign) for name, part in first.items()}
    if isinstance(first, list):
        return [_combine(one, other, sign) for one, other in zip(first, second, strict=True)]
    return None if first is None else first + sign * second


def _numbers(value: Any) -> Iterable[int]:  # noqa: ANN401 - any part of the counts
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)
    elif value is not None:
        yield value


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'the counts'}: {fault['msg']}"
