"""Answers that can't score, whatever the model learns."""

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from components.evaluation.metrics import METRICS
from components.evaluation.prediction import Evaluator
from components.model.reachability import out_of_reach
from components.settings import BaseModelSettings
from components.tasks.rows import Example
from components.tasks.task_file import Task

HEADER = {"name": "t", "version": "1", "owner": "o", "description": "d", "licence": "CC0-1.0"}
STEPS = "At the beginning there are 205 apples in the crate, then 2 are eaten and 2 are added: 205."


def task(**fields) -> Task:
    return Task.model_validate({**HEADER, **fields}, strict=False)


def faults(base, rows, **fields):
    found = out_of_reach(base.reader, base.settings, task(**fields), rows)
    return [fault and fault.words for fault in found]


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_an_answer_is_cut_beyond_the_limit_and_not_at_it(tiny_base, metric):
    count = len(tiny_base.tokenizer(STEPS, add_special_tokens=False)["input_ids"])
    choices = (STEPS, "no") if metric == "choice_accuracy" else None
    row = Example("Solve it.", "Crate 105.", STEPS)
    for limit, found in ((count - 1, f"{count} tokens, decoding.max_new_tokens is {count - 1}"), (count, None)):
        decoding = {"max_new_tokens": limit}
        assert faults(tiny_base, [row], metric=metric, decoding=decoding, choices=choices) == [found]


def test_the_limit_is_the_one_that_evaluation_applies(tiny_bench):
    """A model that answers with the reference scores exactly where nothing is found."""
    base = tiny_bench.base
    evaluator = Evaluator(tiny_bench.trunk, tiny_bench.slot, 4)
    row = Example("Solve it.", None, "The crate holds 205 apples.")
    count = len(base.tokenizer(row.output, add_special_tokens=False)["input_ids"])
    for limit in (count - 1, count, count + 1):
        chosen = task(decoding={"max_new_tokens": limit})
        query = evaluator.query(chosen, row, None)
        perfect = SimpleNamespace(
            tokens=list(query.rendering.answer), gaps=[1.0] * len(query.rendering.answer), pasts=()
        )
        evaluator._certify = lambda rendered, read, perfect=perfect: [perfect]
        [made] = evaluator._generate([query], None, False, None)
        [fault] = out_of_reach(base.reader, base.settings, chosen, [row])
        assert (made.score == 1) == (fault is None)
        assert made.cut == (limit <= count)


@pytest.fixture(scope="module")
def lossy() -> PreTrainedTokenizerFast:
    """A tokenizer that knows lower-case words, and writes the rest as one unknown token."""
    vocabulary = {
        word: number for number, word in enumerate(["[UNK]", "<end>", "the", "answer", "is", "yes", "no", "a"])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="<end>")


@pytest.mark.parametrize(
    ("answer", "metric", "found"),
    [
        ("the answer is yes", "exact_match", None),
        (" the answer is yes\n", "exact_match", None),
        ("the answer is maybe", "exact_match", "1 of its tokens are unknown"),
        ("the answer is maybe", "rouge_l", "does not give it back"),
        ("The answer is yes", "exact_match", "U+0054 (character 1) comes back as U+0074"),
        ("The answer is yes", "token_f1", None),
        ("the  answer", "exact_match", "U+0020 (character 5)"),
        ("the  answer", "rouge_l", None),
    ],
)
def test_what_the_tokenizer_does_not_give_back_is_out_of_reach(lossy, answer, metric, found):
    settings = BaseModelSettings(max_tokens=64)
    [fault] = out_of_reach(lossy, settings, task(metric=metric), [Example("a", None, answer)])
    assert (fault is None) == (found is None)
    assert fault is None or found in fault.words
    assert fault is None or answer not in fault.words


def test_of_two_choices_with_the_same_tokens_only_the_first_is_chosen(lossy):
    settings = BaseModelSettings(max_tokens=64)
    rows = [Example("a", None, "yes"), Example("a", None, "YES"), Example("a", None, "no")]
    chosen = task(metric="choice_accuracy", decoding={"mode": "choose"}, choices=("yes", "YES", "no"))
    found = out_of_reach(lossy, settings, chosen, rows)
    assert [fault and fault.words for fault in found] == [
        None,
        "its tokens are those of an earlier choice, 'yes'",
        None,
    ]


def test_a_choice_that_begins_another_is_within_reach(tiny_base):
    rows = [Example("Which city?", None, city) for city in ("New York", "New York City")]
    fields = {"metric": "choice_accuracy", "choices": ("New York", "New York City"), "decoding": {"mode": "choose"}}
    assert faults(tiny_base, rows, **fields) == [None, None]


def test_prompt_and_longest_choice_have_to_fit(tiny_base):
    """Also where the reference is a short choice: all are read."""
    long = "an answer of very many words " * 6
    settings = tiny_base.settings.model_copy(update={"max_tokens": 80})
    chosen = task(metric="choice_accuracy", choices=("no", long), decoding={"mode": "choose"})
    rows = [Example("Which?", None, "no"), Example("Which?", None, "no", choices=("no", "yes"))]
    first, second = out_of_reach(tiny_base.reader, settings, chosen, rows)
    assert first.words.endswith("tokens, base_model.max_tokens is 80")
    assert second is None


def test_the_examples_are_within_reach(tiny_base, take_example):
    for name in ("movie_sentiment", "booking_slot", "negate_sentence"):
        snapshot = take_example(name)
        limit = {"decoding": {"max_new_tokens": 200}}  # the tiny tokenizer needs more tokens than a real one
        for split in snapshot.splits:
            assert not any(faults(tiny_base, snapshot.rows(split), **limit))
