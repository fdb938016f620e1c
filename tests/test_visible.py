"""Hidden signs are spelt out, and nothing else is changed."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.visible import is_blank, is_plain, visible, visible_json

SPELT = {
    "\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\x1b", "\x07": "\\x07", "\x7f": "\\x7f", "\x9b": "\\x9b",
    "\u200b": "\\u200b", "\u200d": "\\u200d", "\u202e": "\\u202e", "\u2066": "\\u2066", "\u2028": "\\u2028",
    "\ufeff": "\\ufeff", "\xad": "\\xad", "\u061c": "\\u061c", "\U000e0041": "\\U000e0041", "\udcff": "\\udcff",
}  # fmt: skip


@pytest.mark.parametrize(("sign", "spelt"), SPELT.items(), ids=[*map(ascii, SPELT)])
def test_a_hidden_sign_is_spelt_out(sign, spelt):
    assert visible(f"a{sign}b") == f"a{spelt}b"
    assert visible(f"a{sign}b", lines=True) == (f"a{sign}b" if sign in "\n\t" else f"a{spelt}b")


@given(st.text())
def test_nothing_of_a_kind_that_hides_is_left(text):
    shown = visible(text)
    assert not {unicodedata.category(sign) for sign in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(sign) for sign in shown} & {
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
    }  # fmt: skip
    assert visible(shown) == shown


@pytest.mark.parametrize(
    "text", ["日本語\N{IDEOGRAPHIC SPACE}で", "Zoë's café \N{EN DASH} naïve", "a\\nb", "عربى", "हिन्दी", "❤️ 👍🏽"]
)
def test_what_shows_itself_stays(text):
    assert visible(text) == text


@given(st.text())
def test_json_means_the_same_and_hides_nothing(text):
    shown = visible_json(json.dumps({"reason": text}, ensure_ascii=False))
    assert json.loads(shown) == {"reason": text}
    assert visible(shown) == shown


@pytest.mark.parametrize("sign", ["\ufe0f", "\U000e0101", "\u180f", "\u2800", "\U0001d173", "\U0001bca0"])
def test_a_sign_that_makes_two_names_look_alike_is_spelt_out(sign):
    assert visible(f"bob{sign}") == "bob" + sign.encode("unicode_escape").decode()
    assert not is_plain(f"bob{sign}")
    assert is_blank(f" {sign}\n")


def test_an_emoji_keeps_its_variant():
    assert visible("good \u2764\ufe0f") == "good \u2764\ufe0f"


@pytest.mark.parametrize("name", ["", " bob", "bob ", "a\nb"])
def test_a_name_with_something_to_hide_is_not_plain(name):
    assert not is_plain(name)
    assert is_plain("\u5c71\u7530 \u592a\u90ce")
