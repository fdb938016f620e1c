"""Assessments of earlier releases that merge two groups to make room: no such task is learnt, it is assessed again."""

from types import SimpleNamespace

import pytest

from components.retention.rules import weights_of
from components.storage.reach import Index
from lcia.worker.loop import Advance

PARENT = "a" * 64


class Watched(Advance):
    """An advance that notes what it would do."""

    def __init__(self, assessment: dict) -> None:
        super().__init__(SimpleNamespace(base=lambda: SimpleNamespace(digest=PARENT)), None, None, print)
        self.assessment, self.done = assessment, []

    def _assessment(self, item):
        return self.assessment

    def move(self, item, state, why, **facts):
        self.done.append(why)
        return SimpleNamespace(state=state)

    def _assess(self, item, parent):
        return SimpleNamespace(state="held")

    def _learn(self, item, parent):
        return SimpleNamespace(state="learnt")


@pytest.mark.parametrize(
    ("grouping", "state"),
    [({"merge": ["g1", "g2"]}, "held"), ({"merge": None}, "learnt"), ({}, "learnt")],
)
def test_a_task_that_was_to_be_learnt_beside_a_merge_is_assessed_again(grouping, state):
    advance = Watched({"parent": PARENT, "grouping": {"action": "open", "group": "g3", **grouping}})
    assert advance.run(SimpleNamespace(state="learning", is_change=False)).state == state
    assert advance.done == (["groups are no longer merged at the cap; it is assessed again"] if state == "held" else [])


def test_weights_that_an_earlier_release_merged_go_with_the_withdrawn_rows():
    record = {
        "kind": "tuning", "points": {"live": "1" * 64}, "curvature": None,
        "merge": {"keep": "g1", "gone": "g2", "adapter": "2" * 64, "curvature": "3" * 64},
    }  # fmt: skip
    assert weights_of(Index(), record) == {digit * 64 for digit in "123"}
