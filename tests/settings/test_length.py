"""Length of a tuning: epochs within bounds, an explicit number of steps, and what is said about rows left out."""

import pytest

from components.settings import TuningSettings, length, stored_settings
from components.settings.root import Settings


@pytest.mark.parametrize(
    ("rows", "settings", "steps", "read", "epochs"),
    [
        (600, {}, 225, 600, 3),
        (600, {"epochs": 0.5, "batch_size": 7, "min_steps": 1}, 43, 301, 0.5),  # rounded up to a whole step
        (10_000, {}, 3000, 10_000, 2.4),
        (100_000, {}, 3000, 24_000, 0.24),
        (30, {}, 60, 30, 16),  # few rows are read more often
        (30, {"min_steps": 100, "max_steps": 50}, 50, 30, 13.333),
        (600, {"steps": 7}, 7, 56, 0.093),
        (600, {"steps": 5000}, 5000, 600, 66.667),  # a number of steps is nobody's to bound
        (10_000, {"max_rows": 600}, 225, 600, 3),
        (1, {"min_steps": 1}, 1, 1, 8),
    ],
)
def test_epochs_within_bounds_or_an_explicit_number_of_steps(rows, settings, steps, read, epochs) -> None:
    planned = length(rows, TuningSettings(**settings))
    assert (planned.steps, planned.read) == (steps, read)
    assert planned.to_json()["epochs"] == pytest.approx(epochs, abs=0.01)


@pytest.mark.parametrize(
    ("rows", "settings", "words"),
    [
        (600, {}, ""),
        (600, {"max_rows": 600}, ""),
        (
            24_600, {},
            ("600 of 24600 training rows are not read: tuning.max_steps is 3000, of 8 rows each; to read them, raise "
            "tuning.max_steps or tuning.batch_size"),
        ),
        (
            600, {"steps": 60},
            ("120 of 600 training rows are not read: tuning.steps is 60, of 8 rows each; to read them, set "
            "tuning.steps to null"),
        ),
        (
            10_000, {"max_rows": 600},
            ("9400 of 10000 training rows are not read: tuning.max_rows is 600; to read them, set tuning.max_rows to "
            "null"),
        ),
        (
            10_000, {"max_rows": 600, "steps": 60},
            ("9520 of 10000 training rows are not read: tuning.max_rows is 600 and tuning.steps is 60, of 8 rows each; "
            "to read them, set tuning.max_rows to null and set tuning.steps to null"),
        ),
        (
            10_000, {},
            "the rows are read 2.4 times instead of 3: tuning.max_steps is 3000; raise it for more passes",
        ),
    ],
)  # fmt: skip
def test_rows_left_out_and_passes_cut_short_are_said_with_what_to_do(rows, settings, words) -> None:
    assert "; ".join(length(rows, TuningSettings(**settings)).remarks) == words


def test_a_version_of_the_release_before_keeps_its_length_and_has_no_early_stopping() -> None:
    content = Settings().content()
    for key in ("epochs", "min_steps", "max_steps", "early_stopping"):
        content["tuning"].pop(key, None)
    content["tuning"] |= {"steps": 120, "batch_size": 4, "max_rows": 240}
    old = stored_settings(content)
    assert length(600, old.tuning).to_json()["steps"] == 120
    assert not old.tuning.early_stopping
    assert old.content() == content  # and so its digest
    assert Settings().content()["tuning"]["early_stopping"] is True
