"""A replaced task leaves the family of tasks that the gate protects, whichever way it was said; it is shown still."""

from dataclasses import replace
from typing import Any

import pytest

from components.gate.gate import decide_gate
from components.gate.inputs import GateEvidence, NewTask, PriorTask
from components.settings import GateSettings

GOOD, LOST = (1.0,) * 200, (0.0,) * 60 + (1.0,) * 140


@pytest.fixture
def forgot() -> GateEvidence:
    """A candidate that lost 30 % of one task and nothing of another in the same group."""
    prior = [PriorTask(n, n * 64, "g1", GOOD, GOOD, after, may_differ=True) for n, after in (("a", LOST), ("b", GOOD))]
    new = NewTask("c", (0.0,) * 200, GOOD, GOOD, GOOD)
    return GateEvidence(tuple(prior), new, "pass", "new", 1.0)


def _rows(evidence: GateEvidence) -> tuple[str, dict[tuple[str, str | None], Any]]:
    report = decide_gate(evidence, GateSettings())
    return report.verdict, {(row.rule, row.task): row for row in report.rows}


def test_the_gate_protects_what_is_not_replaced(forgot: GateEvidence) -> None:
    verdict, rows = _rows(forgot)
    assert verdict == "fail"
    assert rows["step", "a"].verdict == "fail"


def test_the_gate_shows_what_is_replaced_and_lets_it_go(forgot: GateEvidence) -> None:
    a, b = forgot.prior
    verdict, rows = _rows(replace(forgot, prior=(replace(a, superseded_by="c@1"), b)))
    assert verdict == "pass"
    assert not {("step", "a"), ("lifetime", "a"), ("pooled", None)} & set(rows)
    row = rows["superseded", "a"]
    assert (row.verdict, row.value) == ("info", pytest.approx(0.3))
    assert "replaced by c@1" in row.words
    assert "1 changed prior task" in rows["power", None].words


def test_replacing_one_task_does_not_free_another(forgot: GateEvidence) -> None:
    a, b = forgot.prior
    verdict, rows = _rows(replace(forgot, prior=(a, replace(b, superseded_by="c@1"))))
    assert (verdict, rows["step", "a"].verdict) == ("fail", "fail")


def test_all_replaced_leaves_nothing_to_protect(forgot: GateEvidence) -> None:
    gone = tuple(replace(task, superseded_by="c@1") for task in forgot.prior)
    verdict, rows = _rows(replace(forgot, prior=gone))
    assert verdict == "pass"
    assert {rule for rule, _ in rows} >= {"superseded"}
