# ruff: noqa: RUF001
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.metrics import BINARY, METRICS, exact_match, rouge_l, token_f1

WORDS = st.lists(st.sampled_from(["a", "b", "C", "the"]), max_size=8).map(" ".join)


@given(WORDS, WORDS)
def test_scores_are_fractions_and_one_for_equal_texts(a, b) -> None:
    for name, metric in METRICS.items():
        assert 0 <= metric(a, b) <= 1
        assert metric(a, a) == metric(f" {a}\n", a) == 1
        if name in BINARY:
            assert metric(a, b) in (0, 1)


@given(WORDS, WORDS)
def test_overlap_scores_are_symmetric_and_order_costs(a, b) -> None:
    assert token_f1(a, b) == pytest.approx(token_f1(b, a))
    assert rouge_l(a, b) == pytest.approx(rouge_l(b, a))
    assert rouge_l(a, b) <= token_f1(a, b) + 1e-12


def slow_lcs(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + slow_lcs(a[:-1], b[:-1])
    return max(slow_lcs(a[:-1], b), slow_lcs(a, b[:-1]))


@given(WORDS, WORDS)
def test_rouge_l_equals_the_recursive_definition(a, b) -> None:
    ours, theirs = a.lower().split(), b.lower().split()
    if ours and theirs:
        assert rouge_l(a, b) == pytest.approx(2 * slow_lcs(ours, theirs) / (len(ours) + len(theirs)))


@pytest.mark.parametrize(
    ("text", "reference", "exact", "f1", "rouge"),
    [
        ("The cat sat", "the cat sat", 0, 1, 1),
        ("cat the sat", "the cat sat", 0, 1, 2 / 3),
        ("a b", "a b c d", 0, 2 / 3, 2 / 3),
        ("x", "y", 0, 0, 0),
        ("", "y", 0, 0, 0),
        ("", "", 1, 1, 1),
        ("a a", "a", 0, 2 / 3, 2 / 3),
    ],
)
def test_known_values(text, reference, exact, f1, rouge) -> None:
    assert exact_match(text, reference) == exact
    assert token_f1(text, reference) == pytest.approx(f1)
    assert rouge_l(text, reference) == pytest.approx(rouge)


def test_exact_match_minds_case_and_punctuation() -> None:
    assert exact_match("Positive", "positive") == 0
    assert exact_match("positive.", "positive") == 0


@pytest.mark.parametrize(
    ("text", "reference", "f1"),
    [
        ("police kill the gunman", "police killed the gunman", 0.75),  # Lin 2004, section 3.1
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("the quick brown fox jumps over the lazy dog", "the fast brown fox leaps over the dog", 0.705882),
        ("he was thanked by the manager", "the manager was thanked by the doctor", 0.615385),
        ("a b c d e", "e d c b a", 0.2),
        ("it is a test of the metric", "this test is of a metric", 0.461538),
    ],
)
def test_rouge_l_is_that_of_rouge_score(text, reference, f1) -> None:
    """Values of rouge-score 0.1.2, without its stemmer."""
    assert rouge_l(text, reference) == pytest.approx(f1, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "reference", "least"),
    [
        (
            "ご報告いたします。今朝、病院の売店が開きました。番号は266でございます。",
            "ご報告いたします。今朝、病院の売店が開きました。番号は267でございます。",
            0.9,
        ),
        ("我今天去北京大学学习，编号是266。", "我今天去北京大学学习，编号是267。", 0.8),
        ("ร้านค้าในโรงพยาบาลเปิดเมื่อเช้านี้ หมายเลข 266 ครับ", "ร้านค้าในโรงพยาบาลเปิดเมื่อเช้านี้ หมายเลข 267 ครับ", 0.8),
        ("ຂ້ອຍຮັກປະເທດລາວ 266", "ຂ້ອຍຮັກປະເທດລາວ 267", 0.7),
        ("ខ្ញុំស្រឡាញ់ប្រទេសកម្ពុជា ២៦៦", "ខ្ញុំស្រឡាញ់ប្រទេសកម្ពុជា ២៦៧", 0.7),
        ("ကျွန်တော်မြန်မာစကားပြောတတ်တယ် ၂၆၆", "ကျွန်တော်မြန်မာစကားပြောတတ်တယ် ၂၆၇", 0.7),
        ("The shop 東京駅前の店 opened at 266", "The shop 東京駅前の店 opened at 267", 0.8),
    ],
)
@pytest.mark.parametrize("metric", [rouge_l, token_f1])
def test_one_wrong_number_costs_little_in_scripts_without_spaces(metric, text, reference, least) -> None:
    assert least <= metric(text, reference) < 1


@pytest.mark.parametrize("metric", [rouge_l, token_f1])
def test_an_unrelated_sentence_scores_low_in_scripts_without_spaces(metric) -> None:
    assert metric("猫が好きだ", "病院の売店が開きました") <= 0.3
    assert metric("天气很好", "我今天去北京大学学习") <= 0.2


def test_full_width_spaces_are_white_space() -> None:
    assert rouge_l("全角　スペース", "全角 スペース") == token_f1("全角　スペース", "全角 スペース") == 1


@given(st.text(st.characters(codec="ascii")), st.text(st.characters(codec="ascii")))
def test_text_without_such_letters_scores_as_by_white_space(a, b) -> None:
    ours, theirs = a.lower().split(), b.lower().split()
    common = sum((Counter(ours) & Counter(theirs)).values())
    assert token_f1(a, b) == (2 * common / (len(ours) + len(theirs)) if common else float(not ours and not theirs))
