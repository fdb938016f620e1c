"""Weights of the route to gateways: those of the one canary under way, else all to the champion."""

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml
from small_loop import OPS, SmallLoop

from components.audit.log import Actor
from infra.canary import TrialsUnreadable, patch, weights
from lcia.operations.table import OPERATIONS

CANARY = {"id": 2, "kind": "canary", "share": 0.05, "state": "under_way", "signed": True, "over": None}
ENDED = {**CANARY, "id": 1, "share": 0.2, "state": "ended", "over": "somebody stopped it"}


def text(*trials: dict[str, Any]) -> str:
    """The answer of the operation `trials`."""
    return json.dumps({"trials": trials})


def test_the_share_of_the_canary_under_way_is_the_candidates_weight() -> None:
    assert weights(text(ENDED, CANARY)) == (9500, 500)
    assert weights(text({**CANARY, "share": 0.0001})) == (9999, 1)


@pytest.mark.parametrize(
    "change", [{"kind": "shadow"}, {"state": "waiting"}, {"state": "ended"}, {"signed": False}, {"over": "late"}]
)
def test_nothing_else_sends_requests_to_the_candidate(change: dict[str, Any]) -> None:
    """A shadow answers nobody, and gateways begin no canary without a statement."""
    assert weights(text({**CANARY, **change})) == (10_000, 0)
    assert weights(text()) == (10_000, 0)


def test_the_patch_names_both_weights() -> None:
    changes = yaml.safe_load(patch(text(CANARY)))
    assert [one["op"] for one in changes] == ["replace", "replace"]
    assert {one["path"]: one["value"] for one in changes} == {
        "/spec/rules/0/backendRefs/0/weight": 9500,
        "/spec/rules/0/backendRefs/1/weight": 500,
    }


@pytest.mark.parametrize("answer", ["", "[]", "{}", text({**CANARY, "share": 1.5}), text({"kind": "canary"})])
def test_other_input_is_refused(answer: str) -> None:
    with pytest.raises(TrialsUnreadable, match="expected the output of `lcia trial --json`"):
        weights(answer)


def test_it_reads_what_the_verb_prints() -> None:
    command = [sys.executable, "-m", "infra.canary"]
    done = subprocess.run(command, input=text(CANARY), capture_output=True, text=True, check=True)
    assert done.stdout == patch(text(CANARY))
    broken = subprocess.run(command, input="nothing", capture_output=True, text=True, check=False)
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "lcia trial --json" in broken.stderr


def test_a_canary_from_its_start_to_its_end(fourth: SmallLoop) -> None:
    """The operation's own answers, on a learnt assistant whose fourth version waits."""
    instance, erin = fourth.open(), Actor("erin", assured=False)

    def do(name: str, actor: Actor = erin, **params: Any) -> str:
        operation = OPERATIONS[name]
        return json.dumps(operation.run(instance, actor, operation.check(params)))

    do("start-trial", version="4", kind="canary", share=0.1, reason="two weeks of shadow")
    assert weights(do("trials")) == (10_000, 0), "it waits for its approval"
    do("approve-trial", OPS, trial=1, reason="shadow agreed")
    assert weights(do("trials")) == (9000, 1000)
    do("stop-trial", trial=1, reason="seen enough")
    assert weights(do("trials")) == (10_000, 0)
