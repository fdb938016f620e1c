"""Keys of results cover the sources of the steps that make them."""

import re
from pathlib import Path

import pytest

from components.settings import Settings
from lcia.worker.runs import ASSESS, EVALUATE, LEARN, TUNE, LearnKeys
from steps.order import LearnOrder

STEPS = Path(__file__).parents[2] / "steps"
BELOW = {"errors", "settings", "storage", "visible"}
"""Folders that hand things over; none of them computes a result."""


@pytest.mark.parametrize(
    ("steps", "folders"),
    [
        (("ingest_task", "validate_data", "check_drift", "group_instructions"), ASSESS),
        (("tune",), (*TUNE, "evaluation")),  # for its report alone, on which no version depends
        (("evaluate_forgetting",), EVALUATE),
        (("gate", "register_candidate"), (*EVALUATE, *LEARN)),
    ],
)
def test_a_result_is_made_again_when_code_of_its_step_changes(steps: tuple[str, ...], folders: tuple[str, ...]) -> None:
    for step in steps:
        imports = set(re.findall(r"components\.([a-z_]+)", (STEPS / f"{step}.py").read_text()))
        assert imports - BELOW <= set(folders), step


def test_a_replaced_task_makes_tuning_and_evaluation_others() -> None:
    """A run that goes on after people declared something must not mix two sets of replaced tasks."""
    order = LearnOrder(settings="s", package="p", assessment="a")
    record, settings = {"task": "t", "group": "g1"}, Settings().content()
    keys = LearnKeys.of(order, record, settings)
    again = LearnKeys.of(order.model_copy(update={"superseded": {"a@1": "b@1"}}), record, settings)
    assert LearnKeys.of(order, record, settings) == keys
    assert not {keys.tune, keys.evaluate, keys.learn} & {again.tune, again.evaluate, again.learn}
