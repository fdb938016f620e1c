"""Pseudo-labels: what may be asked, how sure an answer is, what is trusted, and a whole run on the tiny model."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from components.evaluation.tuning_report import tuning_html
from components.grouping.pool import GroupTask, Pool
from components.grouping.router import extend
from components.model.generation import generate_greedy
from components.model.prompts import render, render_prompt
from components.settings import (
    EmaSettings,
    PseudoLabelSettings,
    PseudoRehearsalSettings,
    RehearsalSettings,
    TuningSettings,
)
from components.tasks.rows import Example, Unlabelled
from components.tasks.task_file import Decoding
from components.tuning.pseudo_labels import Guess, Labeller, WordingAnswer, calibrate, guess, usable_rows
from components.tuning.task import tune_task

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
CONFIDENCES = st.tuples(st.sampled_from([1 / 3, 2 / 3, 1.0]), st.floats(0, 20))


# -- calibration -------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.booleans(), CONFIDENCES, st.booleans()), max_size=120),
    st.sampled_from([0.3, 0.6, 0.9]),
    st.sampled_from([0.8, 0.95]),
)
def test_what_is_trusted_shows_the_precision_asked_for(rows, precision, confidence) -> None:
    guesses = [Guess("a" if usable else None, own) for usable, own, _ in rows]
    found = calibrate(guesses, [hit for _, _, hit in rows], precision, confidence)
    if found.threshold is None:
        assert (found.count, found.right) == (0, 0)
        return
    hits = [hit for usable, own, hit in rows if usable and own >= found.threshold]
    assert (found.count, found.right) == (len(hits), sum(hits))
    oracle = binomtest(sum(hits), len(hits)).proportion_ci(2 * confidence - 1, method="exact")
    assert found.precision_at_least == pytest.approx(oracle.low)
    assert found.precision_at_least >= precision


@pytest.mark.parametrize(("rows", "truth"), [(60, 0.85), (100, 0.899), (300, 0.899)])
def test_answers_below_the_precision_asked_for_are_trusted_no_more_often_than_allowed(rows, truth) -> None:
    """Worst case: the confidence says nothing, so all tests see rows of one and the same, too low precision."""
    draw, trusted = random.Random(0), 0
    for _ in range(2000):
        guesses = [Guess("a", (1.0, draw.random())) for _ in range(rows)]
        trusted += calibrate(guesses, [draw.random() < truth for _ in guesses], 0.9, 0.95).threshold is not None
    assert trusted / 2000 <= 0.05 + 0.01


def test_a_good_labeller_is_trusted_and_a_sorted_one_in_part() -> None:
    sure = [Guess("a", (1.0, float(i))) for i in range(100)]
    assert calibrate(sure, [True] * 100, 0.9, 0.95).threshold == (1.0, 0.0)
    half = calibrate(sure, [i >= 40 for i in range(100)], 0.9, 0.95)
    assert half.threshold == (1.0, 40.0)
    assert calibrate(sure, [i < 40 for i in range(100)], 0.9, 0.95).threshold is None
    assert calibrate([], [], 0.9, 0.95).threshold is None
    assert calibrate(sure[:20], [True] * 20, 0.9, 0.95).threshold is None  # too few rows to show it


# -- agreement ---------------------------------------------------------------------------------------


class Spoken:
    """A labeller whose answers are told: a table of (instruction, input) in place of a model."""

    def __init__(self, trunk, table):
        self.trunk, self.table = trunk, table

    def answers(self, task, rows, progress=None):
        return [self.table[row.question] for row in rows]


def test_the_answer_most_wordings_agree_on_wins_and_the_own_wording_breaks_ties(tiny_bench, take_example) -> None:
    said = {
        "a": WordingAnswer("x", 1.0),
        "b": WordingAnswer("y", 2.0),
        "c": WordingAnswer("y", 4.0),
        "d": WordingAnswer(None, 9.0),
    }
    labeller = Spoken(tiny_bench.trunk, {(w, "in"): answer for w, answer in said.items()})

    def asked(own: str, wordings: str, paraphrases: int) -> Guess:
        task = take_example("passive_voice").task
        return guess(labeller, task, [Unlabelled(own, "in")], list(wordings), paraphrases)[0]

    assert asked("a", "abc", 3) == Guess("y", (pytest.approx(2 / 3), 3.0))
    assert asked("a", "abc", 2) == Guess("x", (0.5, 1.0))
    assert asked("b", "abc", 2) == Guess("y", (0.5, 2.0))
    assert asked("a", "abc", 1) == asked("a", "a", 3) == Guess("x", (1.0, 1.0))
    assert asked("c", "cbd", 3) == Guess("y", (pytest.approx(2 / 3), 3.0))
    assert asked("d", "d", 3).text is None
    labeller.table = {("a", ""): WordingAnswer("x", 1.0)}
    assert guess(labeller, take_example("passive_voice").task, [Unlabelled("a", None)], ["b"], 3) == [
        Guess("x", (1.0, 1.0))
    ]


@pytest.mark.parametrize("mode", ["generate", "choose"])
def test_the_labeller_answers_as_one_row_at_a_time_does(tiny_bench, take_example, parent, mode) -> None:
    bench = tiny_bench
    snapshot = take_example("movie_sentiment", decoding=Decoding(mode=mode, max_new_tokens=4), choices=("no", "oh my"))
    task = snapshot.task.model_copy(update={"choices": None}) if mode == "generate" else snapshot.task
    rows = [Unlabelled(row.instruction, row.input) for row in snapshot.rows("validation")]
    half = {row.input for row in rows[:3]}

    def routes(every):
        return ["parent" if row.input in half else None for row in every]

    labeller = Labeller(bench.trunk, bench.slot, routes, {"parent": parent.adapter}, 4)
    for row, answer in zip(rows, labeller.answers(task, rows), strict=True):
        bench.slot.load(parent.adapter)
        if row.input not in half:
            bench.slot.load({name: torch.zeros_like(t) for name, t in parent.adapter.items()})
        base = bench.base
        if mode == "generate":
            prompt = render_prompt(base.tokenizer, base.settings, row.instruction, row.input)
            (made,) = generate_greedy(bench.slot.model, [prompt], 4, base.ends, 1)
            text = base.tokenizer.decode(made.tokens, skip_special_tokens=True).strip()
            assert answer.text == (text if text and len(made.tokens) < 4 else None)
            assert answer.gap == pytest.approx(made.gap, abs=1e-4)
            continue
        values = []
        for choice in task.choices:
            pair = render(base.tokenizer, base.settings, row.instruction, row.input, choice)
            logits = bench.slot.model(torch.tensor([pair.tokens])).logits.detach()[0, len(pair.prompt) - 1 : -1]
            values.append(float(logits.log_softmax(-1).gather(1, torch.tensor(pair.answer)[:, None]).sum()))
        assert answer.text == task.choices[values.index(max(values))]
        assert answer.gap == pytest.approx(max(values) - min(values), abs=1e-3)


# -- what may be asked -------------------------------------------------------------------------------


def test_rows_of_any_evaluation_split_are_never_asked(store, take_example, take_unlabelled) -> None:
    earlier = take_example("product_sentiment")
    task = take_example("movie_sentiment")
    own, prior = task.rows("test")[0], earlier.rows("validation")[0]
    other = next(row.instruction for row in task.rows("train") if row.instruction != own.instruction)
    fresh = [Unlabelled("Say what it is.", f"thing {i}") for i in range(3)]
    leaks = [
        Unlabelled(*task.rows("validation")[0].question),
        Unlabelled(*own.question),
        Unlabelled(other, own.input.upper()),
        Unlabelled(*prior.question),
    ]
    known = [Unlabelled(*task.rows("train")[0].question), fresh[0]]
    offer = usable_rows(take_unlabelled("movie_sentiment", [*fresh, *leaks, *known]), [earlier])
    assert (offer.rows, offer.leaking, offer.repeats) == (tuple(fresh), 4, 2)
    assert usable_rows(take_unlabelled("movie_sentiment", [leaks[3]]), []).leaking == 0


def test_erased_evaluation_rows_that_unlabelled_ones_can_not_be_compared_with_are_named(take_unlabelled, take_example):
    earlier = take_example("product_sentiment")
    gone = replace(
        earlier, splits={split: replace(ref, object="0" * 64) for split, ref in earlier.splits.items()}, _read={}
    )
    task = take_unlabelled("movie_sentiment", 3)
    label = earlier.task.label
    assert usable_rows(task, [gone]).unknown == (f"{label} validation", f"{label} test")
    assert usable_rows(task, [earlier]).unknown == ()


# -- a whole run -------------------------------------------------------------------------------------

LEARNING = TuningSettings(
    steps=16,
    max_rows=None,
    learning_rate=2e-2,
    checkpoint_every=2,
    ema=EmaSettings(rule="curvature", fisher_rows=3),
    rehearsal=RehearsalSettings(share=0.2),
    pseudo_rehearsal=PseudoRehearsalSettings(share=0.2),
    pseudo_labels=PseudoLabelSettings(share=0.5, labeller="self", precision=0.5, rows=30),
)


@pytest.fixture
def settings(tiny_settings):
    return tiny_settings.model_copy(update={"tuning": LEARNING})


def changed(settings, **values):
    labels = settings.tuning.pseudo_labels.model_copy(update=values)
    return settings.model_copy(update={"tuning": settings.tuning.model_copy(update={"pseudo_labels": labels})})


@pytest.fixture
def empty(tiny_bench):
    return Pool.empty("assistant", tiny_bench.base.digest)


def test_a_first_pass_labels_rows_that_are_then_learnt(store, settings, tiny_bench, empty, take_unlabelled) -> None:
    snapshot = take_unlabelled("movie_sentiment", 12)
    record = store.get_json(tune_task(store, settings, tiny_bench, snapshot, empty, None, "with"))
    labels = record["pseudo_labels"]
    assert (labels["labeller"], labels["offered"], labels["asked"], labels["leaking"]) == ("self", 12, 12, 0)
    assert labels["precision_at_least"] >= labels["precision_wanted"]
    assert labels["validation_right"] == labels["validation_accepted"] > 0
    assert 0 < labels["used"] <= 12
    assert labels["words"].startswith(f"{labels['used']} of 12 unlabelled rows, labelled by a first pass")
    assert f"<b>Pseudo-labels</b>: {labels['words']}" in tuning_html(record)
    assert record["rows"] == 16
    assert record["kept_rows"] is None or len(store.get_lines(record["kept_rows"])) <= 16
    kept = store.get_lines(record["kept_rows"])
    asked = {row.question for row in snapshot.unlabelled_rows()}
    assert not any(Example.from_row(row).question in asked for row in kept)  # nothing of them is kept
    without = store.get_json(tune_task(store, changed(settings, share=0.0), tiny_bench, snapshot, empty, None, "off"))
    assert "pseudo_labels" not in without
    assert without["points"] != record["points"]


def test_without_trust_or_rows_the_run_is_the_plain_one(store, settings, tiny_bench, empty, take_unlabelled) -> None:
    snapshot = take_unlabelled("movie_sentiment", 12)
    plain = store.get_json(tune_task(store, changed(settings, share=0.0), tiny_bench, snapshot, empty, None, "off"))
    strict = changed(settings, precision=0.99)
    record = store.get_json(tune_task(store, strict, tiny_bench, snapshot, empty, None, "strict"))
    assert (record["pseudo_labels"]["threshold"], record["pseudo_labels"]["used"]) == (None, 0)
    assert {name: value for name, value in record.items() if name != "pseudo_labels"} == plain
    bare = take_unlabelled("movie_sentiment", [])
    on = tune_task(store, settings, tiny_bench, bare, empty, None, "bare")
    assert on == tune_task(store, changed(settings, share=0.0), tiny_bench, bare, empty, None, "bare off")


def test_the_champion_labels_what_it_is_routed_to(store, settings, tiny_bench, empty, take_unlabelled) -> None:
    first = take_unlabelled("movie_sentiment", 0)
    record = store.get_json(tune_task(store, settings, tiny_bench, first, empty, None, "first"))
    entry = GroupTask(first.digest, first.task.name, first.instructions(), record["kept_rows"])
    pool = extend(
        empty, entry, group=None, adapter=record["points"]["live"], curvature=record["curvature"], parent=None,
        config="c" * 64, settings=settings.grouping,
    )  # fmt: skip
    snapshot, champion = take_unlabelled("product_sentiment", 12), changed(settings, labeller="champion")
    labels = store.get_json(tune_task(store, champion, tiny_bench, snapshot, pool, "g1", "k"))["pseudo_labels"]
    assert labels["used"] > 0
    nobody = store.get_json(tune_task(store, champion, tiny_bench, snapshot, empty, None, "n"))["pseudo_labels"]
    assert (nobody["used"], nobody["threshold"]) == (0, None)  # the base model alone knows nothing of the task


@pytest.mark.parametrize("stop", [("tune", 5), ("label", 1), ("tune", 21)])
def test_killed_anywhere_and_resumed_is_as_if_undisturbed(
    store, settings, tiny_bench, empty, take_unlabelled, stop
) -> None:
    """In the first pass, while labelling, and in the second pass."""
    snapshot = take_unlabelled("movie_sentiment", 12)
    whole = tune_task(store, settings, tiny_bench, snapshot, empty, None, "whole")
    seen: dict[str, int] = {}

    def kill(stage: str, done: int, total: int) -> None:
        seen[stage] = seen.get(stage, 0) + 1
        if (stage, seen[stage]) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune_task(store, settings, tiny_bench, snapshot, empty, None, "broken", kill)
    steps = seen["tune"]
    again = tune_task(store, settings, tiny_bench, snapshot, empty, None, "broken", kill)
    assert again == whole
    assert seen["tune"] - steps <= 2 * LEARNING.steps - (steps - 1) // 2 * 2 + 1  # it did not start over
