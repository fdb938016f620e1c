"""Data checks of a task snapshot with Great Expectations: hard rules refuse, soft rules warn.

The package reader already refuses malformed files; this checks whether the rows are fit to learn from and to judge by:
enough of them, answers inside the choices, no contradictions, no leaks into or out of the training rows of this and
every earlier task. Great Expectations evaluates every rule; its own page is not used, because it fetches from outside
and breaks on numpy scalars.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from components.errors import LciaError
from components.quality.fingerprints import load_fingerprints
from components.quality.leaks import SeenBefore, seen_before
from components.quality.omissions import Omission, as_records
from components.quality.reachable import Reach, reach_rule
from components.quality.rule import Rule, Severity
from components.quality.rules import (
    SUITE,
    SUITE_VERSION,
    Surroundings,
    TooLong,
    balance_rule,
    label_shares,
    near_places,
    split_frame,
    split_rules,
)
from components.settings import ValidationSettings
from components.storage.objects import ObjectCorrupt, ObjectMissing
from components.tasks.images import ImageRefused
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot
from components.tasks.task_file import SPLITS, Split

if TYPE_CHECKING:
    import pandas as pd

Verdict: TypeAlias = Literal["pass", "warn", "refuse"]

MAX_ROWS_SHOWN = 20


class ValidationError(LciaError):
    """Great Expectations could not evaluate a rule; nothing is known about the data."""


@dataclass(frozen=True)
class Check:
    """Outcome of one rule on one split."""

    name: str
    split: str
    severity: Severity
    success: bool
    seen: str
    expected: str
    rows: tuple[int, ...] = ()
    """Row numbers (from 1) that break it, the first 20."""
    found: tuple[str, ...] = ()
    """The fault in each of these rows, if the rule can name it; personal data is masked."""


@dataclass(frozen=True)
class Quarantined:
    """A row that is set aside: it takes no part in training or evaluation."""

    split: str
    row: int
    id: str
    reason: str


@dataclass(frozen=True)
class ValidationResult:
    """Verdict of the data checks; `refuse` means that nothing is learnt from this task."""

    task: str
    name: str
    verdict: Verdict
    checks: tuple[Check, ...]
    quarantined_rows: tuple[Quarantined, ...] = ()
    statistics: dict[str, Any] = field(default_factory=dict)
    not_checked: tuple[Omission, ...] = ()
    """Rules, or rows of earlier tasks, that could not be checked."""

    def to_json(self) -> dict[str, Any]:
        """A canonical JSON object."""
        value = asdict(self)
        value["checks"] = [{**c, "rows": list(c["rows"]), "found": list(c["found"])} for c in value["checks"]]
        return {
            "kind": "validation",
            "schema": 1,
            "suite": {"name": SUITE, "version": SUITE_VERSION},
            **value,
            "quarantined_rows": list(value["quarantined_rows"]),
            "not_checked": as_records(self.not_checked),
        }


@dataclass(frozen=True)
class Background:
    """Context of a check; each part may be missing, and the result then names the omission."""

    same_type: frozenset[str] = frozenset()
    """Digests of the earlier tasks with instructions of the task's type: those of the group it would join."""
    own_hashes: str | None = None
    """Fingerprints of the task itself."""
    kept_hashes: Mapping[str, str] = field(default_factory=dict)
    """Task digest -> fingerprints of earlier tasks."""
    too_long: TooLong | None = None
    """Finds rows beyond the context; None if the base model's tokenizer is not available."""
    reach: Reach | None = None
    """Finds answers that can't score; None likewise."""
    no_tokenizer: str = "no base model was named"
    """Reason why there is no tokenizer, if there is none."""


def validate(
    snapshot: Snapshot,
    prior_snapshots: Sequence[Snapshot],
    settings: ValidationSettings,
    background: Background | None = None,
) -> ValidationResult:
    """Check a task's rows, also against the rows of all earlier tasks.

    Raises:
        ValidationError: Great Expectations failed to evaluate a rule.
        ObjectMissing, ObjectCorrupt: rows of this task are gone or damaged.
    """
    outside, store = background or Background(), snapshot.store
    hashes = {task: load_fingerprints(store, digest) for task, digest in outside.kept_hashes.items()}
    priors = (prior for prior in prior_snapshots if prior.digest != snapshot.digest)
    before = seen_before(priors, outside.same_type, hashes if outside.own_hashes else {})
    own = load_fingerprints(store, outside.own_hashes) if outside.own_hashes else None
    rows: dict[Split, tuple[Example, ...]] = {split: snapshot.rows(split) for split in SPLITS}
    images = snapshot.has_images
    near, alone = near_places(rows)
    around = Surroundings(before, own, near, outside.too_long, outside.reach, _bad_images if images else None)
    expectations = _quiet_expectations()
    checks: list[Check] = []
    aside: list[Quarantined] = []
    for split in SPLITS:
        frame = split_frame(split, rows, around, snapshot.task)
        own_rules = [reach_rule(outside.reach, snapshot.task, rows[split], settings)] if outside.reach else []
        checks += expectations.run(split, frame, [*split_rules(split, settings, images=images), *own_rules])
        aside += _rows_aside(split, frame)
    shares = label_shares(rows["train"], snapshot.task.choices)
    if shares is not None:
        checks += expectations.run("train", shares, [balance_rule(settings)])
    statistics = _statistics(rows, snapshot, before)
    if alone:
        statistics["rows_with_too_few_words_of_their_own_to_find_near_duplicates"] = alone
    if images:
        statistics |= _image_statistics(rows)
    return ValidationResult(
        task=snapshot.digest,
        name=snapshot.task.label,
        verdict=_verdict(checks, aside),
        checks=tuple(checks),
        quarantined_rows=tuple(aside),
        statistics=statistics,
        not_checked=tuple(_omissions(outside, before, snapshot)),
    )


def _omissions(outside: Background, before: SeenBefore, snapshot: Snapshot) -> Iterator[Omission]:
    if snapshot.unlabelled_split is not None:
        yield Omission("unlabelled rows", "their leaks and lengths are looked at when they are labelled, nothing else")
    for check, finder in (("context", outside.too_long), ("reachable", outside.reach)):
        if finder is None:
            yield Omission(check, outside.no_tokenizer)
    if before.unknown:
        yield Omission("leaks", f"no rows or hashes are kept of {', '.join(before.unknown)}")
    if before.by_hash and outside.same_type:
        splits = ", ".join(before.by_hash)
        yield Omission("earlier_conflicts", f"only hashes are kept of {splits}, and they show equal rows alone")


class _Expectations:
    """One ephemeral Great Expectations context."""

    def __init__(self, context: Any) -> None:  # noqa: ANN401  (the library is untyped here)
        self._source = context.data_sources.add_pandas("rows")

    def run(self, split: str, frame: "pd.DataFrame", rules: Sequence[Rule]) -> list[Check]:
        """Evaluate rules on a frame; checks come in the order of the rules."""
        import great_expectations as gx

        name = f"{split}-{len(self._source.assets)}"
        definition = self._source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        batch = definition.get_batch(batch_parameters={"dataframe": frame})
        for index, rule in enumerate(rules):
            rule.expectation.meta = {"rule": index}
        suite = gx.ExpectationSuite(name=f"{SUITE}-{SUITE_VERSION}", expectations=[r.expectation for r in rules])
        outcome = batch.validate(
            suite,
            result_format={
                "result_format": "SUMMARY",
                "unexpected_index_column_names": ["row"],
                "partial_unexpected_count": MAX_ROWS_SHOWN,
            },
        ).to_json_dict()
        by_rule = {entry["expectation_config"]["meta"]["rule"]: entry for entry in outcome["results"]}
        return [_check(split, rule, by_rule[index]) for index, rule in enumerate(rules)]


def _quiet_expectations() -> _Expectations:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    _hush()
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    _hush()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    context.variables.analytics_enabled = False
    return _Expectations(context)


def _hush() -> None:
    """Silence the library, before its import, which logs some 200 lines, and after it, as one module sets its level."""
    for name in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _check(split: str, rule: Rule, entry: dict[str, Any]) -> Check:
    exception = entry["exception_info"]
    if exception.get("raised_exception", True):
        inner = exception.values() if "raised_exception" not in exception else [exception]
        reasons = "; ".join(str(each["exception_message"]) for each in inner)
        raise ValidationError(
            f"Great Expectations could not evaluate {rule.name} on {split}: {reasons}; "
            "run `make test` to see whether the installed version fits"
        )
    result = entry["result"]
    if "observed_value" in result:
        value = result["observed_value"]
        words = f"{value} rows" if isinstance(value, int) else "all present" if entry["success"] else "others"
        return Check(rule.name, split, rule.severity, entry["success"], words, rule.words)
    places = (result.get("partial_unexpected_index_list") or [])[:MAX_ROWS_SHOWN]
    rows = tuple(item["row"] for item in places)
    findings = tuple(str(item[rule.shows]) for item in places) if rule.shows else ()
    words = f"{result['unexpected_count']} of {result['element_count']}"
    if rule.worst and rows:
        words += f", worst {rule.worst}"
    return Check(rule.name, split, rule.severity, entry["success"], words, rule.words, rows, findings)


def _rows_aside(split: Split, frame: "pd.DataFrame") -> Iterator[Quarantined]:
    columns = (frame["row"], frame["id"], frame["leak"], frame["too_long"])
    for row, row_id, leak, tokens in zip(*columns, strict=True):
        if leak:
            yield Quarantined(split, int(row), row_id, f"the same question is in {leak}")
        elif tokens:
            yield Quarantined(split, int(row), row_id, f"prompt and answer take {tokens} tokens, more than the context")


def _verdict(checks: Sequence[Check], aside: Sequence[Quarantined]) -> Verdict:
    severities = {check.severity for check in checks if not check.success}
    if "hard" in severities:
        return "refuse"
    return "warn" if severities or aside else "pass"


def _bad_images(examples: Sequence[Example]) -> list[str]:
    """Per row the fault of images that can't be read; each image is read once."""
    faults: dict[str, str] = {}
    for picture in {picture for example in examples for picture in example.images}:
        try:
            picture.pixels()
        except (ObjectMissing, ObjectCorrupt, ImageRefused) as error:
            faults[picture.digest] = f"{type(error).__name__} {picture.digest[:12]}"
    return ["; ".join(faults[p.digest] for p in example.images if p.digest in faults) for example in examples]


def _image_statistics(rows: dict[Split, tuple[Example, ...]]) -> dict[str, Any]:
    by_split = {
        split: [picture for example in examples for picture in example.images] for split, examples in rows.items()
    }
    return {
        "images": {split: len(pictures) for split, pictures in by_split.items()},
        "distinct_images": {split: len(set(pictures)) for split, pictures in by_split.items()},
    }


def _statistics(rows: dict[Split, tuple[Example, ...]], snapshot: Snapshot, before: SeenBefore) -> dict[str, Any]:
    train = rows["train"]
    statistics: dict[str, Any] = {
        "rows": {split: len(examples) for split, examples in rows.items()},
        "instructions": len({example.instruction for example in train}),
        "median_input_characters": median(len(example.input or "") for example in train) if train else 0,
        "median_output_characters": median(len(example.output) for example in train) if train else 0,
        "longest_output_characters": max((len(example.output) for example in train), default=0),
        "distinct_outputs": len({example.output for example in train}),
    }
    if snapshot.task.choices is not None:
        statistics["labels"] = dict(sorted(Counter(example.output for example in train).items()))
    if before.by_hash:
        statistics["leaks_checked_by_hash"] = list(before.by_hash)
    if before.unknown:
        statistics["leaks_not_checkable"] = list(before.unknown)
    return statistics
