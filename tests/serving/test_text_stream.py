"""Parts of a text: together they are what decoding at once gives, whatever the tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.serving.text_stream import TextStream

TEXTS = ["  Hello, world. \n", "naïve café", "日本語のテキスト", "😀 and 👨‍👩‍👧", "a\n\n\nb   ", "", " "]


def parts_of(tokenizer, tokens, stops=()):
    """Parts in order, and the stream."""
    stream, parts = TextStream(tokenizer, stops), []
    for token in tokens:
        parts.append(stream.push(token))
        if stream.stopped:
            break
    return [*parts, stream.end()], stream


@pytest.mark.parametrize("text", TEXTS)
def test_the_parts_are_the_text(tiny_base, text):
    tokens = tiny_base.tokenizer(text)["input_ids"]
    parts, stream = parts_of(tiny_base.tokenizer, tokens)
    assert "".join(parts) == tiny_base.tokenizer.decode(tokens, skip_special_tokens=True).strip() == stream.text
    assert not any("\N{REPLACEMENT CHARACTER}" in part for part in parts), "no half characters"


@given(st.data())
def test_any_tokens_and_stops(tiny_base, data):
    tokens = data.draw(st.lists(st.integers(0, len(tiny_base.tokenizer) - 1), max_size=30))
    stops = data.draw(st.lists(st.text(min_size=1, max_size=3), max_size=3))
    whole = tiny_base.tokenizer.decode(tokens, skip_special_tokens=True).lstrip()
    parts, stream = parts_of(tiny_base.tokenizer, tokens, stops)
    places = [whole.find(stop) for stop in stops if stop in whole]
    if not stream.stopped:
        assert "".join(parts) == whole.strip()
    else:
        assert places
        assert whole.startswith("".join(parts))
        assert not any(stop in "".join(parts) for stop in stops)


def test_it_ends_before_a_stop_string_that_comes_in_pieces(tiny_base):
    tokens = tiny_base.tokenizer("One. Two. END Three.")["input_ids"]
    parts, stream = parts_of(tiny_base.tokenizer, tokens, ["END"])
    assert "".join(parts) == "One. Two."
    assert stream.stopped
