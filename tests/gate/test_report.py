"""Stored gate reports of every release are read in one form; words of old rows are read where that happens alone."""

import json
from dataclasses import asdict, replace

import pytest

from components.gate.gate import decide_gate
from components.gate.inputs import GateEvidence, NewTask, PriorTask
from components.gate.report import GateReport, GateRow, present_form
from components.settings import GateSettings

LATER = ("look", "group", "anchor_look", "superseded_by", "assessment")
"""Fields that the first release's rows did not have."""
FIRST = {
    "kind": "gate",
    "schema": 1,
    "verdict": "inconclusive",
    "attempt": 1,
    "alpha": 0.05,
    "enforced": True,
    "power": {"pass_probability": 0.9, "tasks": 2, "discordance": 0.05, "alpha": 0.05, "words": "A candidate ..."},
    "rows": [
        {"rule": "validation", "task": None, "verdict": "pass", "value": None, "low": None, "high": None,
         "limit": None, "words": "data checks: warn"},
        {"rule": "drift", "task": None, "verdict": "inconclusive", "value": None, "low": None, "high": None,
         "limit": None, "words": "drift: extreme: a person has to accept it"},
        {"rule": "lifetime", "task": "news", "verdict": "pass", "value": 0.0, "low": -0.02, "high": 0.02,
         "limit": 0.05, "words": "drop against the anchor +0.000 (4 of 200 rows differ), at most +0.020 with 95.0% "
                                 "confidence; allowed 0.050"},
        {"rule": "lifetime", "task": "mail", "verdict": "pass", "value": 0.0, "low": -0.02, "high": 0.02,
         "limit": 0.05, "words": "look 12 at its anchor: drop against the anchor +0.000 (4 of 200 rows differ), at "
                                 "most +0.020 with 100.0% confidence; allowed 0.050"},
        {"rule": "pooled", "task": None, "verdict": "inconclusive", "value": 0.0, "low": -0.02, "high": 0.02,
         "limit": 0.01, "words": "reserve opened; group g12, 2 prior tasks: drop against the champion +0.000 (8 of "
                                 "400 rows differ), at most +0.020 with 95.0% confidence; allowed 0.010", "look": 2},
        {"rule": "superseded", "task": "old", "verdict": "info", "value": 0.2, "low": None, "high": None,
         "limit": None, "words": "replaced by mail@2, not protected; drop against the champion +0.200"},
    ],
}  # fmt: skip
"""A report as releases wrote it whose rows had `look` where it was 2, and none of the later fields."""


def test_a_report_of_an_earlier_release_has_every_field() -> None:
    rows = {(row["rule"], row["task"]): row for row in present_form(FIRST)["rows"]}
    assert all(set(row) == set(GateRow.__dataclass_fields__) for row in rows.values())
    assert rows["validation", None]["assessment"] == "warn"
    assert rows["drift", None]["assessment"] == "extreme"
    assert rows["lifetime", "news"]["anchor_look"] == 1
    assert rows["lifetime", "mail"]["anchor_look"] == 12
    assert (rows["pooled", None]["group"], rows["pooled", None]["look"]) == ("g12", 2)
    assert rows["superseded", "old"]["superseded_by"] == "mail@2"
    assert {row["group"] for row in rows.values()} == {None, "g12"}
    assert [row["words"] for row in rows.values()] == [row["words"] for row in FIRST["rows"]]
    assert GateReport.from_json(FIRST).rows[4].group == "g12"


def test_a_name_of_a_superseding_task_that_an_earlier_release_said_twice() -> None:
    """Judged again, such a report once repeated its own sentence."""
    once = FIRST["rows"][-1]["words"]
    row = {**FIRST["rows"][-1], "words": f"replaced by {once}, not protected; drop against the champion +0.200"}
    assert present_form({"rows": [row]})["rows"][0]["superseded_by"] == "mail@2"


@pytest.fixture
def evidence() -> GateEvidence:
    """Every rule at once: a reserve that is opened, a later look at an anchor, a group of two, a replaced task."""
    champion = (1.0,) * 160 + (0.0,) * 40
    candidate = (0.0,) * 8 + champion[8:-1] + (1.0,)
    held = (False, True) * 100
    tasks = [
        PriorTask(name, "1" * 64, "g1", champion, champion, candidate, may_differ=True, reserve=held, look=look)
        for name, look in (("news", 1), ("mail", 3))
    ]
    old = replace(tasks[0], name="old", superseded_by="mail@2")
    new = NewTask("new", (0.0,) * 200, champion, champion, champion, reserve=held)
    return GateEvidence((*tasks, old), new, drift="extreme", validation="warn")


def test_words_of_a_new_report_say_what_its_fields_say(evidence: GateEvidence) -> None:
    """So a report stripped of the fields, as an earlier release wrote it, is read as the same report."""
    report = decide_gate(evidence, GateSettings(reserve_share=0.5))
    value = json.loads(json.dumps(report.to_json()))
    for rule in ("pooled", "lifetime", "superseded", "validation", "drift"):
        assert rule in {row["rule"] for row in value["rows"]}
    assert max(row["look"] for row in value["rows"]) == 2
    kept = [{name: row[name] for name in row if name not in LATER[1:]} for row in value["rows"]]
    assert present_form({**value, "rows": kept}) == value
    assert present_form(value) == value
    assert asdict(GateReport.from_json({**value, "rows": kept})) == asdict(report)


def test_fields_are_believed_before_words() -> None:
    row = {**FIRST["rows"][4], "group": "g3"}
    assert present_form({"rows": [row]})["rows"][0]["group"] == "g3"


def test_a_report_without_rows_stays_one() -> None:
    assert present_form({"kind": "gate", "verdict": "fail"}) == {"kind": "gate", "verdict": "fail", "rows": []}
