"""Certified and decoded predictions against plain greedy decoding and brute-force likelihood."""

from dataclasses import replace

import pytest
import torch

from components.evaluation.metrics import METRICS
from components.evaluation.prediction import Evaluator, choices_of
from components.model.generation import generate_greedy
from components.settings import BaseModelSettings
from components.storage.objects import canonical, digest_of
from components.tasks.rows import Example
from components.tasks.task_file import Decoding

BATCH = 5


@pytest.fixture
def evaluator(tiny_bench) -> Evaluator:
    return Evaluator(tiny_bench.trunk, tiny_bench.slot, BATCH)


def plain(bench, queries, adapters):
    """Text and score by decoding every prompt, certificate or not."""
    tokenizer, out = bench.base.tokenizer, []
    for query in queries:
        if query.adapter:
            bench.slot.load(adapters[query.adapter])
            (result,) = generate_greedy(*_greedy(bench, query))
        else:
            with bench.slot.switched_off():
                (result,) = generate_greedy(*_greedy(bench, query))
        text = tokenizer.decode(result.tokens, skip_special_tokens=True)
        out.append((text, METRICS[query.task.metric](text, query.example.output), result.gap))
    return out


def _greedy(bench, query):
    limit = query.task.decoding.max_new_tokens
    return bench.base.model, [query.rendering.prompt], limit, bench.base.ends, 1


@pytest.mark.parametrize("metric", ["exact_match", "token_f1", "rouge_l"])
def test_texts_scores_and_gaps_are_those_of_plain_greedy_decoding(
    evaluator, tiny_bench, take_example, trained, metric
) -> None:
    movie = take_example("movie_sentiment", train=24, test=12)
    passive = take_example("passive_voice", test=4)
    adapters = {"movie": trained(movie), "passive": trained(passive)}
    first, second = (s.task.model_copy(update={"metric": metric}) for s in (movie, passive))
    queries = [evaluator.query(first, e, "movie") for e in movie.rows("test")]
    queries += [evaluator.query(second, e, "passive") for e in passive.rows("test")]
    queries += [evaluator.query(first, e, None) for e in movie.rows("test")[:4]]
    got = evaluator.predict(queries, adapters)
    expected = plain(tiny_bench, queries, adapters)
    assert [(p.text, p.score) for p in got] == [(text, score) for text, score, _ in expected]
    assert [p.gap for p in got] == pytest.approx([gap for _, _, gap in expected], abs=1e-3)
    hits = sum(p.score for p in got[:12])
    assert 0 < hits < 12  # otherwise this test shows nothing


def test_scores_only_gives_the_same_scores(evaluator, take_example, trained) -> None:
    snapshot = take_example("movie_sentiment", train=24, test=12)
    adapters = {"a": trained(snapshot)}
    queries = [evaluator.query(snapshot.task, e, "a") for e in snapshot.rows("test")]
    full, scores = evaluator.predict(queries, adapters), evaluator.predict(queries, adapters, scores_only=True)
    assert [p.score for p in full] == [p.score for p in scores]
    assert all(p.text is not None for p in full)


@pytest.fixture
def echo(evaluator, tiny_bench, take_example, trained):
    """Queries whose references are made from what the model answers: the certificate's edge cases."""
    snapshot = take_example("passive_voice", train=16, test=5)
    adapters = {"a": trained(snapshot)}
    task = snapshot.task.model_copy(update={"decoding": Decoding(max_new_tokens=5)})
    examples = snapshot.rows("test")
    texts = [p.text for p in evaluator.predict([evaluator.query(task, e, "a") for e in examples], adapters)]
    return task, list(zip(examples, texts, strict=True)), adapters


@pytest.mark.parametrize(
    "made",
    [
        lambda text: text,  # cut by the limit without an end token, yet a hit
        lambda text: text.strip() or "x",
        lambda text: f"  {text.strip() or 'x'} \n",  # only white space differs: other tokens, same score
        lambda text: text + " and more",
        lambda text: text[: max(1, len(text) // 2)],
        lambda text: f"{text[:3] or 'x'}<|im_end|>rest",  # the end token within the reference
    ],
)
@pytest.mark.parametrize("limit", [1, 5])
def test_references_at_the_edges_of_the_certificate(evaluator, tiny_bench, echo, made, limit) -> None:
    task, answers, adapters = echo
    task = task.model_copy(update={"decoding": Decoding(max_new_tokens=limit)})
    examples = [replace(e, output=made(text)) for e, text in answers]
    queries = [evaluator.query(task, e, "a") for e in examples]
    expected = plain(tiny_bench, queries, adapters)
    got = evaluator.predict(queries, adapters)
    assert [(p.text, p.score) for p in got] == [(text, score) for text, score, _ in expected]
    scores = [p.score for p in evaluator.predict(queries, adapters, scores_only=True)]
    assert scores == [score for _, score, _ in expected]


def test_half_a_character_can_still_become_the_reference(evaluator, tiny_bench, echo) -> None:
    """The first diverging token may be one byte of a character; that alone does not make a miss."""
    task, answers, adapters = echo
    examples = [replace(e, output="é" + text) for e, text in answers]
    queries = [evaluator.query(task, e, "a") for e in examples]
    scores = [p.score for p in evaluator.predict(queries, adapters, scores_only=True)]
    assert scores == [score for _, score, _ in plain(tiny_bench, queries, adapters)]


@pytest.mark.parametrize("normalisation", ["none", "tokens"])
def test_choose_is_the_likeliest_answer_by_brute_force(evaluator, tiny_bench, take_example, normalisation) -> None:
    choices = ("positive", "negative", "a rather longer answer", "no")
    decoding = Decoding(mode="choose", length_normalisation=normalisation)
    snapshot = take_example("movie_sentiment", test=8, decoding=decoding, choices=choices, metric="choice_accuracy")
    own = Example("Pick one.", "dog", "dog", ("dog", "cat"))
    examples = [*snapshot.rows("test"), own]
    slot, base = tiny_bench.slot, tiny_bench.base
    draw = torch.Generator().manual_seed(0)
    adapter = {n: torch.randn(p.shape, generator=draw) * 0.2 for n, p in slot.parameters.items()}
    got = evaluator.predict([evaluator.query(snapshot.task, e, "a") for e in examples], {"a": adapter})
    slot.load(adapter)
    for example, prediction in zip(examples, got, strict=True):
        values = []
        for choice in choices_of(snapshot.task, example):
            row = evaluator.query(snapshot.task, replace(example, output=choice), "a").rendering
            with torch.no_grad():
                logits = base.model(input_ids=torch.tensor([row.tokens])).logits[0].log_softmax(-1)
            steps = [logits[len(row.prompt) - 1 + i, token].item() for i, token in enumerate(row.answer)]
            values.append(sum(steps) / (len(steps) if normalisation == "tokens" else 1))
        ranked = sorted(values, reverse=True)
        assert prediction.text == choices_of(snapshot.task, example)[values.index(ranked[0])]
        assert prediction.score == float(prediction.text == example.output)
        assert prediction.gap == pytest.approx(ranked[0] - ranked[1], abs=1e-3)
    assert len({p.text for p in got}) > 1


def test_a_single_choice_is_chosen(evaluator, take_example) -> None:
    snapshot = take_example("movie_sentiment", decoding=Decoding(mode="choose"), choices=None)
    example = Example("Say it.", None, "yes", ("yes",))
    (prediction,) = evaluator.predict([evaluator.query(snapshot.task, example, None)], {})
    assert (prediction.text, prediction.score) == ("yes", 1.0)


def test_a_rows_own_choices_come_before_the_tasks(take_example) -> None:
    task = take_example("movie_sentiment").task
    assert choices_of(task, Example("a", None, "b")) == task.choices
    assert choices_of(task, Example("a", None, "b", ("b", "c"))) == ("b", "c")


def test_mixed_modes_limits_and_adapters_come_back_in_order(evaluator, take_example, trained) -> None:
    movie = take_example("movie_sentiment", test=3)
    adapters = {"x": trained(movie), "y": trained(take_example("grammar_check"))}
    tasks = [
        movie.task,
        movie.task.model_copy(update={"decoding": Decoding(max_new_tokens=2)}),
        movie.task.model_copy(update={"decoding": Decoding(mode="choose")}),
    ]
    queries = [
        evaluator.query(task, example, adapter)
        for example in movie.rows("test")
        for task in tasks
        for adapter in ("y", None, "x")
    ]
    together = evaluator.predict(queries, adapters)
    for query, prediction in zip(queries, together, strict=True):
        (alone,) = Evaluator(evaluator.trunk, evaluator.slot, 1).predict([query], adapters)
        assert (alone.text, alone.score) == (prediction.text, prediction.score)
        assert alone.gap == pytest.approx(prediction.gap, abs=1e-3)


def test_progress_counts_every_query_once(evaluator, take_example, trained) -> None:
    snapshot = take_example("movie_sentiment", test=12)
    adapters = {"a": trained(snapshot)}
    for task in (snapshot.task, snapshot.task.model_copy(update={"decoding": Decoding(mode="choose")})):
        queries = [evaluator.query(task, e, "a") for e in snapshot.rows("test")]
        for scores_only in (False, True):
            done: dict[str, int] = {}
            totals: dict[str, int] = {}

            def progress(phase: str, count: int, total: int, done=done, totals=totals) -> None:
                done[phase] = done.get(phase, 0) + count
                totals[phase] = total

            evaluator.predict(queries, adapters, scores_only=scores_only, progress=progress)
            assert done == totals
            choices = len(snapshot.task.choices) if task.decoding.mode == "choose" else 1
            assert done["reading"] == len(queries) * choices


class TestKey:
    """What a prediction depends on is in its key, and nothing else."""

    @pytest.fixture
    def example(self) -> Example:
        return Example("Judge it.", "Fine.", "positive")

    @pytest.fixture
    def task(self, take_example):
        return take_example("movie_sentiment").task

    def test_adapter_tokens_decoding_and_choices(self, evaluator, task, example) -> None:
        keys = [
            evaluator.query(task, example, "a").key,
            evaluator.query(task, example, "b").key,
            evaluator.query(task, example, None).key,
            evaluator.query(task, replace(example, input="Bad."), "a").key,
            evaluator.query(task, replace(example, instruction="Judge."), "a").key,
            evaluator.query(task, replace(example, choices=("positive", "x")), "a").key,
            evaluator.query(task.model_copy(update={"decoding": Decoding(max_new_tokens=9)}), example, "a").key,
            evaluator.query(task.model_copy(update={"decoding": Decoding(mode="choose")}), example, "a").key,
        ]
        assert len(set(keys)) == len(keys)

    def test_the_reference_the_metric_and_the_name_do_not_matter(self, evaluator, task, example) -> None:
        key = evaluator.query(task, example, "a").key
        assert evaluator.query(task, replace(example, output="negative"), "a").key == key
        changed = task.model_copy(update={"name": "other", "metric": "token_f1", "target": 0.5})
        assert evaluator.query(changed, example, "a").key == key

    def test_numerics_base_and_system_prompt(self, evaluator, tiny_bench, task, example, load_tiny) -> None:
        key = evaluator.query(task, example, "a").key
        base = tiny_bench.base
        for changed in (
            replace(base, numerics={**base.numerics, "torch": "0"}),
            replace(base, digest="0" * 64),
            replace(base, settings=BaseModelSettings(system_prompt="Other.")),
        ):
            evaluator.trunk.base = changed
            assert evaluator.query(task, example, "a").key != key
        evaluator.trunk.base = base
        assert evaluator.query(task, example, "a").key == key


def test_an_answer_with_the_end_token_inside_can_score(evaluator, tiny_bench, example_in, store) -> None:
    """Tuned on nothing but that answer, the model gives it, as text, and ends after it."""
    from components.model.prompts import answer_tokens, render
    from components.settings import EmaSettings, TuningSettings
    from components.tuning.tuner import tune

    base, answer = tiny_bench.base, "<|im_end|> bye"
    task = example_in(store, "passive_voice").task.model_copy(update={"decoding": Decoding(max_new_tokens=30)})
    example = Example("Say the end.", None, answer)
    row = render(base.reader, base.settings, example.instruction, example.input, example.output)
    assert row.answer.count(base.tokenizer.eos_token_id) == 1
    quick = TuningSettings(
        steps=30, batch_size=2, learning_rate=2e-2, checkpoint_every=30, ema=EmaSettings(rule="fixed", beta=0.9)
    )
    learnt = tune(tiny_bench.trunk, tiny_bench.slot, [row] * 4, (), None, quick, None, 32).points["live"]
    (got,) = evaluator.predict([evaluator.query(task, example, "a")], {"a": learnt})
    assert (got.text, got.score) == (answer, 1.0)
    cut = example.__class__("Say the end.", None, "<|im_end|> by")  # certified as far as it goes, then decoded on
    (other,) = evaluator.predict([evaluator.query(task, cut, "a")], {"a": learnt})
    assert (other.text, other.score) == (answer, 0.0)
    chosen = task.model_copy(update={"decoding": Decoding(mode="choose"), "choices": (answer, "<|im_end|> no", "bye")})
    query = evaluator.query(chosen, example, "a")
    rows = evaluator._rows(query)
    assert [each.answer for each in rows] == [answer_tokens(base.reader, choice) for choice in chosen.choices]
    (best,) = evaluator.predict([query], {"a": learnt})
    assert (best.text, best.score) == (answer, 1.0)


def test_keys_change_only_where_choices_spell_control_tokens(evaluator, example_in, store) -> None:
    """Such choices were once read as control tokens: what was predicted then must not be carried over."""
    task = example_in(store, "movie_sentiment").task.model_copy(update={"decoding": Decoding(mode="choose")})
    example = Example("Judge it.", "Fine.", "positive")
    base = evaluator.trunk.base

    def key(choices: tuple[str, ...]) -> str:
        parts = {
            "adapter": "a",
            "choices": list(choices),
            "decoding": task.decoding.model_dump(mode="json"),
            "numerics": base.numerics_digest,
            "base": base.digest,
            "tokens": list(evaluator.query(task, example, "a").rendering.prompt),
        }
        return digest_of(canonical(parts))

    for choices, same in ((("positive", "negative"), True), (("positive", "<|im_end|>"), False)):
        asked = task.model_copy(update={"choices": choices})
        assert (evaluator.query(asked, example, "a").key == key(choices)) is same
