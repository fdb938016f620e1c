"""Hidden signs are spelt out, and nothing else is changed."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.visible import visible, visible_json

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
