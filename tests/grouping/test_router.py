import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest

from components.grouping.pool import GroupTask, Pool, PoolError
from components.grouping.report import grouping_html
from components.grouping.router import (
    PlacementError,
    Router,
    RouterStateError,
    decide,
    distinct_instructions,
    extend,
)
from components.grouping.tfidf import TfidfEncoder
from components.settings import GroupingSettings

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
NAMES = (
    "movie_sentiment", "request_domain", "passive_voice", "booking_slot", "product_sentiment",
    "assistant_intent", "negate_sentence", "grammar_check",
)  # fmt: skip
DEFAULT = GroupingSettings()


def instructions(name: str) -> tuple[str, ...]:
    lines = (EXAMPLES / name / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return distinct_instructions([json.loads(line)["instruction"] for line in lines])


@pytest.fixture(scope="module")
def examples() -> dict[str, tuple[str, ...]]:
    return {name: instructions(name) for name in NAMES}


def learn(pool: Pool, name: str, texts: tuple[str, ...], settings: GroupingSettings = DEFAULT):
    decision = decide(pool, texts, settings)
    if decision.action == "hold":
        return pool, decision
    digest = f"{NAMES.index(name) if name in NAMES else 40 + len(name):02x}" * 32
    grown = extend(
        pool, GroupTask(digest, name, texts), group=decision.group if decision.action == "reuse" else None,
        adapter="f" * 64, curvature=None, parent=None, config="c" * 64, settings=settings,
    )  # fmt: skip
    return grown, decision


def learn_all(examples, order, settings=DEFAULT):
    pool, decisions = Pool.empty("assistant", "b" * 64), {}
    for name in order:
        pool, decisions[name] = learn(pool, name, examples[name], settings)
    return pool, decisions


def groups_of(pool: Pool) -> set[frozenset[str]]:
    return {frozenset(entry.name for entry in group.tasks) for group in pool.groups}


def test_examples_group_the_same_in_any_order_and_none_is_near_the_threshold(examples):
    expected = {frozenset({"movie_sentiment", "product_sentiment"})} | {
        frozenset({name}) for name in NAMES if not name.endswith("_sentiment")
    }
    orders = [list(NAMES), *(random.Random(seed).sample(NAMES, len(NAMES)) for seed in range(8))]
    orders += [list(pair) + [n for n in NAMES if n not in pair] for pair in itertools.permutations(NAMES[:5:2], 2)]
    for order in orders:
        pool, decisions = learn_all(examples, order)
        assert groups_of(pool) == expected, order
        for name, decision in decisions.items():
            assert abs(decision.similarity - decision.threshold) > decision.review_band + 0.03, (name, decision.words)


def test_similarity_is_mean_pairwise_cosine_over_self_similarity(examples):
    """The oracle: all pairs, one by one."""
    words = GroupingSettings(encoder="tfidf")
    pool, _ = learn_all(examples, ["movie_sentiment"], words)
    a, b = examples["movie_sentiment"], examples["product_sentiment"]
    encoder = TfidfEncoder.fit([*a, *b])
    rows = {text: np.asarray(encoder.encode([text]).todense()).ravel() for text in {*a, *b}}

    def mean(left, right):
        return np.mean([rows[x] @ rows[y] for x in left for y in right])

    expected = mean(a, b) / np.sqrt(mean(a, a) * mean(b, b))
    assert decide(pool, b, words).similarity == pytest.approx(expected, abs=1e-6)


def test_a_task_matches_itself_with_one(examples):
    pool, _ = learn_all(examples, ["passive_voice", "grammar_check"])
    decision = decide(pool, examples["passive_voice"] * 3, DEFAULT)
    assert decision.action == "reuse"
    assert decision.group == "g1"
    assert decision.similarity == pytest.approx(1)
    assert decision.margin == pytest.approx(1 - decision.runner_up)


def test_rules_single_and_per_task(examples):
    single = GroupingSettings(rule="single")
    per_task = GroupingSettings(rule="per_task")
    assert len(learn_all(examples, NAMES, single)[0].groups) == 1
    assert len(learn_all(examples, NAMES, per_task)[0].groups) == len(NAMES)


def test_review_band_holds_and_a_person_places(examples):
    pool, _ = learn_all(examples, ["passive_voice"])
    near = GroupingSettings(encoder="tfidf", threshold=0.34, review_band=0.05)
    decision = decide(pool, examples["negate_sentence"], near)
    assert decision.action == "hold"
    assert "review band" in decision.words
    assert decide(pool, examples["negate_sentence"], near, placement="new").action == "open"
    placed = decide(pool, examples["negate_sentence"], near, placement="g1")
    assert (placed.action, placed.group, placed.rule) == ("reuse", "g1", "placed")
    with pytest.raises(PlacementError, match="expected `new` or one of: g1"):
        decide(pool, examples["negate_sentence"], near, placement="g9")


def test_cap_holds_or_takes_the_nearest(examples):
    pool, _ = learn_all(examples, ["passive_voice", "booking_slot"])
    hold = decide(pool, examples["grammar_check"], GroupingSettings(max_groups=2))
    assert (hold.action, hold.group) == ("hold", None)
    nearest = decide(pool, examples["grammar_check"], GroupingSettings(max_groups=2, at_cap="nearest"))
    assert (nearest.action, nearest.group) == ("reuse", "g1")


def test_no_instructions_is_refused():
    with pytest.raises(PlacementError, match="no instruction"):
        decide(Pool.empty("assistant", "b" * 64), [], DEFAULT)


def test_decision_is_plain_json(examples):
    pool, _ = learn_all(examples, NAMES[:3])
    decision = decide(pool, examples["product_sentiment"], DEFAULT)
    value = decision.to_json()
    assert json.loads(json.dumps(value)) == value
    assert value["scores"][0]["group"] == "g1"
    assert len(value["per_instruction"]) == len(examples["product_sentiment"])


def test_requests_go_to_their_group_or_to_none(examples):
    pool, _ = learn_all(examples, NAMES)
    router = Router.from_manifest(json.loads(json.dumps(pool.to_manifest())))
    for group in pool.groups:
        for entry in group.tasks:
            for route in router.route_many(list(entry.instructions)):
                assert (route.group, route.exact, route.similarity) == (group.id, True, 1.0)
    assert router.route("  Negate   this sentence. ").exact
    paraphrases = {
        "Put the sentence in passive voice.": "passive_voice",
        "Is this movie review positive or negative?": "movie_sentiment",
        "Does the sentence have correct grammar?": "grammar_check",
        "Extract the wanted slot value from the request.": "booking_slot",
        "Give the intent: cinema, music, playlist, rating, restaurant, search, weather.": "assistant_intent",
    }
    for text, name in paraphrases.items():
        assert pool.group_of(f"{NAMES.index(name):02x}" * 32).id == router.route(text).group, text
    for text in [
        "Write a poem about the sea.",
        "What is the capital of France?",
        "",
        "日本語で答えてください。",
    ]:
        assert router.route(text).group is None, text


def shared(examples, rule="per_task", **fields):
    """Two tasks with the same instructions, the second learnt later."""
    settings = GroupingSettings(rule=rule)
    pool, _ = learn_all(examples, ["passive_voice"], settings)
    copy = GroupTask("c0" * 32, "copy", examples["passive_voice"])
    return extend(
        pool, copy, group="g1" if rule == "single" else None, adapter="f" * 64, curvature=None, parent=None,
        config="c" * 64, settings=settings, **fields,
    )  # fmt: skip


def routed(pool, texts):
    return {(route.group, route.nearest_task) for route in Router.of(pool).route_many(list(texts))}


def as_before(pool):
    """The version as releases made it whose router didn't say who has the claim on shared instructions."""
    state = {key: value for key, value in pool.router.items() if key not in ("learnt", "replaced")}
    return Pool.from_manifest({**pool.to_manifest(), "router": state})


ASKED_OTHERWISE = ("Please put this sentence into the passive voice.", "Rewrite it in passive voice, please.")


@pytest.mark.parametrize("texts", [None, ASKED_OTHERWISE])
@pytest.mark.parametrize(("rule", "group"), [("per_task", "g2"), ("single", "g1")])
def test_what_two_tasks_have_in_common_goes_to_the_newest(examples, rule, group, texts):
    pool = shared(examples, rule)
    asked = examples["passive_voice"] if texts is None else texts
    assert routed(pool, asked) == {(group, "copy")}
    assert routed(as_before(pool), asked) == {("g1", "passive_voice")}, "a version made before routes as it did"


@pytest.mark.parametrize("texts", [None, ASKED_OTHERWISE])
def test_a_replaced_task_has_no_claim_however_new_it_is(examples, texts):
    pool = shared(examples, without_claim=["copy"])
    assert routed(pool, examples["passive_voice"] if texts is None else texts) == {("g1", "passive_voice")}


def test_what_only_a_replaced_task_has_still_reaches_it(examples):
    pool, _ = learn_all(examples, ["passive_voice"])
    grown = extend(
        pool, GroupTask("c0" * 32, "grammar", examples["grammar_check"]), group=None, adapter="f" * 64, curvature=None,
        parent=None, config="c" * 64, settings=DEFAULT, without_claim=["passive_voice"],
    )  # fmt: skip
    assert routed(grown, examples["passive_voice"]) == {("g1", "passive_voice")}


def test_the_newest_across_groups_is_the_one_learnt_last(examples):
    """An old group that learns again comes first in the pool."""
    pool = shared(examples)
    again = extend(
        pool, GroupTask("d0" * 32, "third", examples["passive_voice"]), group="g1", adapter="e" * 64, curvature=None,
        parent=None, config="c" * 64, settings=DEFAULT,
    )  # fmt: skip
    assert [entry.name for entry in again.tasks()] == ["passive_voice", "third", "copy"]
    assert again.router["learnt"] == ["passive_voice", "copy", "third"]
    assert routed(again, examples["passive_voice"]) == {("g1", "third")}


def test_a_task_like_two_groups_joins_that_of_the_newest(examples):
    pool = shared(examples)
    assert decide(pool, examples["passive_voice"], DEFAULT).group == "g2"
    assert decide(as_before(pool), examples["passive_voice"], DEFAULT).group == "g1"


def test_a_router_that_names_other_tasks_is_an_error(examples):
    pool = shared(examples)
    with pytest.raises(PoolError, match=r"names the tasks \['passive_voice'\], expected those of its groups"):
        Router.from_manifest({**pool.to_manifest(), "router": {**pool.router, "learnt": ["passive_voice"]}})


def test_route_many_is_quick_and_equals_route(examples):
    pool, _ = learn_all(examples, NAMES)
    router = Router.of(pool)
    texts = [f"{text} Case {i}." for i in range(150) for name in NAMES for text in examples[name]]
    many = router.route_many(texts)
    assert len(many) == 3600
    assert all(router.route(texts[i]) == many[i] for i in range(0, 3600, 400))


def test_empty_pool_routes_to_the_base_model_and_lost_state_is_an_error(examples):
    assert Router.of(Pool.empty("assistant", "b" * 64)).route("Negate this sentence.").group is None
    pool, _ = learn_all(examples, ["passive_voice"])
    with pytest.raises(RouterStateError, match="request_threshold"):
        Router.from_manifest({**pool.to_manifest(), "router": {}})


def test_report_is_self_contained_and_escapes(examples):
    pool, _ = learn_all(examples, ["passive_voice"])
    texts = ("<script>alert(1)</script> sentence passive",)
    html = grouping_html(decide(pool, texts, DEFAULT), task="<b>task</b>")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<b>" not in html
    assert "http://" not in html
    assert "https://" not in html
    assert "open" in grouping_html(decide(Pool.empty("assistant", "b" * 64), texts, DEFAULT))
