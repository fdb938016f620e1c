"""Conversations: the tokens of rows, and the instruction that the router goes by."""

from types import SimpleNamespace

import pytest

from components.grouping.route import Route
from components.grouping.router import Router
from components.model.prompts import render_prompt, render_turns
from components.serving.conversation import Conversation, texts_of
from components.settings import BaseModelSettings

SETTINGS = BaseModelSettings(system_prompt="Answer with the result only.")


def test_a_request_in_the_form_of_a_row_gets_the_tokens_of_a_row(tiny_base):
    turns = Conversation((("user", "Do it.\nThe input\nof two lines."),)).complete(tiny_base.settings)
    row = render_prompt(tiny_base.tokenizer, tiny_base.settings, "Do it.", "The input\nof two lines.")
    assert render_turns(tiny_base.tokenizer, tiny_base.settings, turns) == row


@pytest.mark.parametrize(
    ("turns", "is_row"),
    [
        ([("user", "a")], True),
        ([("system", "Answer with the result only."), ("user", "a")], True),
        ([("system", "Be rude."), ("user", "a")], False),
        ([("user", "a"), ("assistant", "b"), ("user", "c")], False),
    ],
)
def test_what_was_evaluated_is_one_turn_under_the_own_system_prompt(turns, is_row):
    assert Conversation(tuple(turns)).is_row(SETTINGS) is is_row


class Exact(Router):
    """A router that knows some instructions word by word, and sends the rest to `near`."""

    def __init__(self, texts, near=None):
        self._exact = {" ".join(text.split()): ("g1", "task") for text in texts}
        self._near, self.asked = near, []

    def route(self, instruction, text=None, fallback=None):
        """The route of an instruction that no task has."""
        self.asked.append((instruction, text))
        return self._near or Route(None, 0.0, 0.0, None, exact=False)


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("Do it.\nthe input", True),
        ("Do it.", True),
        ("Two lines\nof instruction.\nthe input", True),
        ("  Do   it. \nthe input", True),
        ("Do it. the input", False),
        ("\n".join(["x"] * 100), False),
    ],
)
def test_the_longest_beginning_that_a_task_has_decides(text, hit):
    router = Exact(["Do it.", "Two lines\nof instruction."])
    assert router.route_instruction(text).exact is hit
    first, _, rest = text.partition("\n")
    assert router.asked == ([] if hit else [(first, rest or None)])


def test_parts_of_a_turn_are_instruction_and_input():
    assert texts_of(["a", "b"]) == ("a\nb", "a")
    assert texts_of(["a\nb"]) == ("a\nb", None)
    router = Exact([])
    router.route_instruction("Two lines\nof a new instruction.\ninput", "Two lines\nof a new instruction.")
    assert router.asked == [("Two lines\nof a new instruction.", "input")]


def test_a_turn_that_resembles_nothing_goes_on_with_the_newest_one_that_did():
    router = Exact(["Do it.", "Do that."])
    turns = [("user", "Do it.\nx"), ("assistant", "y"), ("user", "and now?")]
    assert Conversation(tuple(turns)).route(router).group == "g1"
    assert Conversation((("user", "and now?"),)).route(router).group is None


UNSURE = Route("g1", 0.6, 0.59, "film", exact=False, threshold=0.3, second_task="voice")


class Unsure(Exact):
    """A router of two tasks that is unsure between them of each instruction but `Do it.` and `qqq`."""

    def __init__(self):
        super().__init__(["Do it."], UNSURE)
        self.codebook = SimpleNamespace(entries=(("g1", "film", ()), ("g2", "voice", ())))

    def route(self, instruction, text=None, fallback=None):
        """The route of an instruction that no task has."""
        near = super().route(instruction, text, fallback)
        return Route(None, 0.0, 0.0, "film", exact=False) if instruction == "qqq" else near.resolve(fallback, 0.05)


def turns_of(*users):
    """A conversation of these turns of the user's."""
    return Conversation(tuple(turn for text in users for turn in (("user", text), ("assistant", "y")))[:-1])


@pytest.mark.parametrize(
    ("users", "fallback", "group", "asked"),
    [
        (["this?"], "answer", "g1", None),
        (["this?"], "base", None, None),
        (["this?"], "ask", None, ("film", "voice")),
        (["this?", "the Voice one"], "ask", "g2", None),
        (["this?", "film"], "ask", "g1", None),
        (["this?", "film or voice"], "ask", None, ("film", "voice")),  # names both
        (["this?", "qqq"], "ask", None, None),
        (["Do it.", "qqq"], "ask", "g1", None),
        (["Do it.", "this?"], "ask", None, ("film", "voice")),  # asked back rather than gone on with
        (["this?", "voice", "qqq"], "ask", "g2", None),  # goes on with what was meant
        (["this?", "voice", "film", "qqq"], "ask", "g1", None),
        (["this?", "voice", "that?"], "ask", None, ("film", "voice")),
        (["this?", "Do it."], "ask", "g1", None),
    ],
)
def test_who_is_asked_back_says_which_task_is_meant(users, fallback, group, asked):
    route = turns_of(*users).route(Unsure(), fallback)
    assert (route.group, route.unsure_between) == (group, asked)


def test_a_huge_text_is_looked_through_in_bounded_time():
    router = Exact(["Do it."])
    router.route_instruction("\n" * 500_000 + "x\n" * 500_000)
    assert len(router.asked) == 1
