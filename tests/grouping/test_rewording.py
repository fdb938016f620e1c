"""Wordings left out of their own task, one at a time."""

import pytest

from components.grouping.pool import GroupTask, Pool
from components.grouping.rewording import Rewording, left_out
from components.grouping.router import Router, extend
from components.settings import GroupingSettings

PASSIVE = (
    "Put the sentence into the passive voice.",
    "Rewrite the sentence in passive voice.",
    "Make the sentence passive.",
)
FRENCH = ("Translate the sentence into French.", "Give the French translation.", "What is this in French?")


def grown(pool: Pool, name: str, texts: tuple[str, ...], wordings: tuple[str, ...] = (), **settings: object) -> Pool:
    entry = GroupTask(f"{len(pool.tasks()):064x}", name, texts, wordings=wordings)
    return extend(
        pool, entry, group=None, adapter="f" * 64, curvature=None, parent=None, config="c" * 64,
        settings=GroupingSettings(**settings),
    )  # fmt: skip


@pytest.fixture(scope="module")
def passive() -> Pool:
    return grown(Pool.empty("assistant", "b" * 64), "passive", PASSIVE)


def test_a_wording_left_out_is_found_by_the_others(passive):
    assert left_out(Router.of(passive)) == {("passive", text): True for text in PASSIVE}


def test_it_is_not_found_by_itself(passive):
    odd = grown(passive, "odd", ("How do bees make honey?", "Sum up the table.", "Colour of the sky?"))
    assert [right for (name, _), right in left_out(Router.of(odd)).items() if name == "odd"] == [False] * 3


def test_single_and_shared_wordings_say_nothing(passive):
    twin = grown(grown(passive, "single", ("Compose a tune.",)), "twin", (PASSIVE[0], "Into passive voice, please."))
    names = list(left_out(Router.of(twin)))
    assert ("single", "Compose a tune.") not in names
    assert ("twin", PASSIVE[0]) not in names
    assert ("passive", PASSIVE[0]) not in names
    assert ("passive", PASSIVE[1]) in names


def test_a_task_that_takes_over_earlier_wordings_is_counted(passive):
    thief = grown(passive, "thief", tuple(f"{text[:-1]} now." for text in PASSIVE))
    harmless = grown(passive, "french", FRENCH)
    before = Router.of(passive)
    lost, kept = (
        Rewording.of(Router.of(pool), before, name) for pool, name in ((thief, "thief"), (harmless, "french"))
    )
    assert (kept.prior_lost, kept.prior_right, kept.prior_of) == (0, 3, 3)
    assert (kept.new_right, kept.new_of) == (3, 3)
    assert lost.prior_lost > 0
    assert lost.prior_right + lost.prior_lost == 3
    assert Rewording.from_json(lost.to_json()) == lost
    assert 0 < kept.let_in < 0.1 * kept.general


def test_further_wordings_help_requests_in_other_words(passive):
    bare = grown(passive, "rate", ("Classify the text as positive or negative.",))
    more = grown(passive, "rate", ("Classify the text as positive or negative.",), ("Do they like it or hate it?",))
    asked = "do they like it?"
    assert Router.of(bare).route(asked).group is None
    assert Router.of(more).route(asked).group == "g2"
    assert Router.of(more).route("Do they like it or hate it?").exact
