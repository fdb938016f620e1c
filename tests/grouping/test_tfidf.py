import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.grouping.pool import EncoderStateError
from components.grouping.tfidf import DIMENSION, TfidfEncoder, words

TEXTS = st.lists(st.text(max_size=40), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS)
def test_every_text_has_a_unit_row(fitted, texts):
    rows = TfidfEncoder.fit(fitted).encode(texts)
    assert rows.shape == (len(texts), DIMENSION)
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    assert np.allclose(norms, 1.0)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.randoms())
def test_state_survives_json_and_ignores_order_and_repetition(texts, random):
    encoder = TfidfEncoder.fit(texts)
    assert TfidfEncoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder
    shuffled = texts * 2
    random.shuffle(shuffled)
    assert TfidfEncoder.fit(shuffled).to_json() == encoder.to_json()


def test_a_known_word_among_unseen_ones_is_not_a_perfect_match():
    encoder = TfidfEncoder.fit(["Negate this sentence."])
    a, b = encoder.encode(["Negate this sentence.", "Translate every sentence into Portuguese verse"])
    assert 0 < (a @ b.T)[0, 0] < 0.3


def test_texts_of_stop_words_or_signs_only_still_match_themselves():
    assert words("What is it about?") == ["what", "is", "it", "about"]
    encoder = TfidfEncoder.fit(["What is it about?", "???"])
    a, b = encoder.encode(["what is it about", "???"])
    assert (a @ a.T)[0, 0] == pytest.approx(1)
    assert (a @ b.T)[0, 0] == 0


@pytest.mark.parametrize(
    ("a", "b", "other"),
    [
        ("次の文を丁寧な報告文に書き換えてください。", "この文を丁寧な文に書き換えてください", "質問に答えよ"),
        ("请把下面的句子翻译成英文", "把这个句子翻译成英文。", "情感是正面还是负面"),
        ("แปลประโยคนี้เป็นภาษาอังกฤษ", "ช่วยแปลประโยคเป็นภาษาอังกฤษ", "รีวิวนี้ดีหรือไม่"),
    ],
)
def test_paraphrases_in_scripts_without_spaces_share_words(a, b, other):
    encoder = TfidfEncoder.fit([a, b, other])
    rows = encoder.encode([a, b, other])
    similar = (rows @ rows.T).toarray()
    assert similar[0, 1] > 0.3 > similar[0, 2]
    assert TfidfEncoder.from_json(encoder.to_json()) == encoder


def test_the_state_of_spaced_texts_is_that_of_the_release_before():
    state = TfidfEncoder.fit(["Negate this sentence.", "Привет мир"]).to_json()
    assert state["analyser"] == "words-en-1"
    assert set(state["frequencies"]) == {"negate", "sentence", "привет", "мир"}


def test_a_version_of_the_release_before_is_read_as_it_was_fitted():
    text = "この文を書き換えて"
    old = {"kind": "tfidf", "analyser": "words-en-1", "documents": 1, "frequencies": {text: 1}}
    encoder = TfidfEncoder.from_json(old)
    assert encoder.to_json() == old
    assert encoder.encode([text]).nnz == 1


@pytest.mark.parametrize(
    "change",
    [{"kind": "embedding"}, {"analyser": "words-en-0"}, {"documents": None}, {"frequencies": {"a": "2"}}],
)
def test_foreign_state_is_refused(change):
    state = {**TfidfEncoder.fit(["Negate this sentence."]).to_json(), **change}
    with pytest.raises(EncoderStateError, match="expected"):
        TfidfEncoder.from_json(state)
