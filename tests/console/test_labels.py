"""Rows of the gate's report in the reader's language, from their fields."""

import pytest

from components.gate.report import present_form
from lcia.console.labels import gate_row

OLD = {"task": None, "value": None, "low": None, "high": None, "limit": None}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"rule": "validation", "verdict": "pass", "words": "data checks: warn"}, "Verdict: warning."),
        ({"rule": "drift", "verdict": "pass", "words": "drift: related"}, "Verdict: related."),
        ({"rule": "drift", "verdict": "pass", "words": "drift: extreme, accepted by a person"}, "Verdict: extreme."),
        (
            {"rule": "drift", "verdict": "inconclusive", "words": "drift: extreme: a person has to accept it"},
            "Verdict: extreme.",
        ),
        ({"rule": "reserve", "verdict": "info", "words": "80 test rows held back"}, "80 test rows held back"),
    ],
)
def test_a_row_of_an_earlier_release(row: dict[str, object], sentence: str) -> None:
    (present,) = present_form({"rows": [OLD | row]})["rows"]
    assert gate_row(str, present) == sentence


def test_numbers_come_from_the_fields_not_the_words() -> None:
    row = OLD | {"rule": "step", "verdict": "pass", "value": 0.01, "high": 0.02, "limit": 0.03, "words": "anything"}
    assert gate_row(str, row).startswith("Lost 0.010, at most 0.020")
