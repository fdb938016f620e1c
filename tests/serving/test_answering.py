"""Answers part by part, on the engine in the process: contract, wishes, refusals."""

import asyncio

import pytest

from components.grouping.route import UNROUTED
from components.serving.answering import Wishes, answer
from components.serving.contract import BASE, FREE, Contract
from components.serving.embedded import EmbeddedEngine
from components.serving.engine import NotAbleTo, Sampling
from components.serving.loaded import Question
from components.tasks.task_file import Decoding


@pytest.fixture
def ask(tiny_bench):
    """Parts of the answer to a question under a contract."""
    engine, reader = EmbeddedEngine(lambda: tiny_bench), tiny_bench.base.reader
    prompt = tuple(reader("The cat saw the dog.")["input_ids"])

    def parts(contract, wishes=Wishes()):  # noqa: B008 - frozen
        question = Question(prompt, contract, UNROUTED, named=False, is_row=True)

        async def run():
            await engine.start()
            return [part async for part in answer(engine, reader, question, wishes)]

        return asyncio.run(run())

    return parts


def text_of(parts):
    """The whole text."""
    return "".join(part.text for part in parts)


def test_the_contract_sets_the_limit_and_a_wish_another(ask):
    whole = ask(BASE)
    assert whole[-1].finish in {"length", "stop"}
    assert sum(part.tokens for part in whole) <= BASE.decoding.max_new_tokens
    short = ask(BASE, Wishes(limit=3))
    assert sum(part.tokens for part in short) == 3
    assert short[-1].finish == "length"
    assert text_of(whole).startswith(text_of(short))
    assert not any(part.steps for part in whole)
    assert all(part.steps for part in ask(BASE, Wishes(limit=3, alternatives=0))[:-1])


CHOICES = Contract(None, None, "task", Decoding(mode="choose"), ("positive", "negative", "a longer answer"))


def test_the_likeliest_choice_is_one_part(ask):
    (part,) = ask(CHOICES)
    assert part.text in CHOICES.choices
    assert (part.finish, part.tokens > 0) == ("stop", True)


@pytest.mark.parametrize("wishes", [Wishes(sampling=Sampling(0.5)), Wishes(stops=("x",)), Wishes(alternatives=1)])
def test_a_choice_is_not_drawn_cut_or_explained(ask, wishes):
    with pytest.raises(NotAbleTo, match="task task chooses"):
        ask(CHOICES, wishes)


@pytest.mark.parametrize("wishes", [Wishes(), Wishes(limit=1), Wishes(sampling=Sampling(0.5), alternatives=1)])
def test_a_question_back_is_one_part_that_no_model_wrote(ask, wishes):
    (part,) = ask(Contract(None, None, None, FREE, question="Which do you mean?"), wishes)
    assert (part.text, part.tokens, part.finish) == ("Which do you mean?", 0, "stop")


def test_by_tokens_compares_means():
    contract = Contract(None, None, "t", Decoding(mode="choose", length_normalisation="tokens"), ("a", "b"))
    sums = Contract(None, None, "t", Decoding(mode="choose"), ("a", "b"))
    answers, likelihoods = [(1,), (1, 2, 3, 4)], [-2.0, -4.0]
    assert sums.choose(likelihoods, answers) == "a"
    assert contract.choose(likelihoods, answers) == "b"


def test_what_keeps_the_contract():
    assert Wishes().keeps(BASE)
    assert Wishes(limit=BASE.decoding.max_new_tokens).keeps(BASE)
    assert not Wishes(limit=1).keeps(BASE)
    assert not Wishes(sampling=Sampling(1.0)).keeps(BASE)
    assert not Wishes(stops=("x",)).keeps(BASE)
