"""Keys of results cover the sources of the steps that make them."""

import re
from pathlib import Path

import pytest
from small_loop import Learnt

from lcia.instance import Instance
from lcia.worker.runs import ASSESS, EVALUATE, LEARN, TUNE, LearnKeys, make_order, tune_key
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


def keys_of(instance: Instance, order: LearnOrder) -> LearnKeys:
    """The keys of an order, as the worker has them."""
    tune = tune_key(instance.store, instance.settings, order)
    return LearnKeys.of(instance.store, instance.settings, order, tune)


def test_a_replaced_task_makes_tuning_and_evaluation_others(learnt: Learnt) -> None:
    """A run that goes on after people declared something must not mix two sets of replaced tasks."""
    instance = learnt.loop.open()
    second = instance.version("2")
    assert second is not None
    evidence = instance.evidence(second)
    order = make_order(instance, "p", second.parent).to_learn(evidence["assessment"])
    keys = keys_of(instance, order)
    declared = order.model_copy(update={"superseded": {"movie_sentiment@1": "product_sentiment@1"}})
    again = keys_of(instance, declared)
    assert keys_of(instance, order) == keys
    assert not {keys.tune, keys.evaluate, keys.learn} & {again.tune, again.evaluate, again.learn}
