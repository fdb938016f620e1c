# ruff: noqa: RUF001
import pytest

from components.words import is_unspaced, words


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The cat, sat on 3.14 mats.",
        "Ångström  naïve\tœuvre\n",
        "오늘 아침 병원 매점이",
        "Привет, мир",
        "مرحبا بالعالم",
        "नमस्ते दुनिया",
        "한국어 ２６６ full－width",
    ],
)
def test_spaced_text_is_split_at_white_space_alone(text):
    assert not is_unspaced(text)
    assert words(text) == text.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("病院の売店です。", ["病院", "の", "売店", "です", "。"]),
        ("我今天去北京", ["我", "今天", "去", "北京"]),
        ("ผมรักประเทศไทย", ["ผม", "รัก", "ประเทศไทย"]),
        ("ຂ້ອຍຮັກປະເທດລາວ", ["ຂ້ອຍ", "ຮັກ", "ປະເທດ", "ລາວ"]),
        ("ខ្ញុំស្រឡាញ់ប្រទេសកម្ពុជា", ["ខ្ញុំ", "ស្រឡាញ់", "ប្រទេស", "កម្ពុជា"]),
        ("番号は266です", ["番号", "は", "266", "です"]),
        ("mixed 日本語 text, it's ok", ["mixed", "日本語", "text,", "it's", "ok"]),
        ("全角　スペース", ["全角", "スペース"]),
    ],
)
def test_unspaced_scripts_are_cut_by_dictionary(text, expected):
    assert words(text) == expected


def test_burmese_is_cut_into_several_words():
    assert len(words("ကျွန်တော်မြန်မာစကားပြောတတ်တယ်")) > 3


def test_zero_width_spaces_change_no_word():
    assert words("ผม\u200bรัก\u200bประเทศไทย") == words("ผมรักประเทศไทย")


def test_no_character_is_lost():
    text = "今朝、病院の売店が開きました。Tokyo駅で、番号は266です！"
    assert "".join(words(text)) == text
