# ruff: noqa: RUF001
import json

import pytest

from components.tasks.decoding_defaults import MOST_TOKENS, answer_limit, answer_tokens, decoding_defaults
from components.tasks.package import read_package
from components.tasks.snapshot import take_snapshot

STEPS = (
    "At the beginning there are 205 apples in the crate. After 2 of them were eaten there are 205 - 2 = 203 apples "
    "left. Then 2 are added, which makes 203 + 2 = 205 apples.\n#### 205"
)
REAL_TOKENS = {
    # text -> tokens with the end token under SmolLM2's tokenizer, counted once
    STEPS: 68,
    "ご報告いたします。今朝、病院の売店が開きました。番号は266でございます。": 65,
    "我今天去北京大学学习，明天还要去上海参加会议。": 40,
    "ผมรักประเทศไทยมากครับ และจะไปเที่ยวเชียงใหม่พรุ่งนี้": 99,
    "ខ្ញុំស្រឡាញ់ប្រទេសកម្ពុជា": 58,
    "ကျွန်တော်မြန်မာစကားပြောတတ်တယ်": 88,
    "ຂ້ອຍຮັກປະເທດລາວ": 46,
    "Сегодня утром открылся магазин в больнице, номер двести шестьдесят шесть.": 60,
    "افتتح متجر المستشفى صباح اليوم ورقمه مئتان وستة وستون": 48,
    "आज सुबह अस्पताल की दुकान खुली, नंबर दो सौ छियासठ है।": 62,
    "오늘 아침 병원 매점이 문을 열었습니다. 번호는 266입니다.": 66,
    "Sáng nay cửa hàng bệnh viện đã mở cửa, số là hai trăm sáu mươi sáu.": 56,
    "def f(x):\n    return {\"a\": [i**2 for i in range(10)], 'b': x[1:-1]}\n": 33,
    "😀🎉🚀👩‍👩‍👧": 23,
}


@pytest.mark.parametrize("text", REAL_TOKENS)
def test_a_derived_limit_holds_the_reference_in_every_script(text):
    assert REAL_TOKENS[text] <= answer_limit([text]) <= 4 * REAL_TOKENS[text]


def test_short_answers_keep_the_limit_of_32():
    assert answer_limit(["positive", "4 doors", "The window was opened by the boy."]) == 32


def test_the_longest_reference_decides_and_a_bound_holds():
    assert answer_limit(["yes", STEPS]) == answer_limit([STEPS])
    assert answer_limit(["word " * 10**6]) == MOST_TOKENS
    assert answer_limit([]) == 32


def test_every_character_costs_at_most_its_bytes():
    for text in REAL_TOKENS:
        assert answer_tokens(text) <= len(text.encode()) + 1


@pytest.mark.parametrize(
    ("references", "choices", "metric"),
    [
        (["yes", "no"] * 20, ["yes", "no"], "exact_match"),
        ([str(n) for n in range(40)], [], "exact_match"),
        (["the parcel has not arrived yet, sorry", "the payment was declined by the bank"] * 20, [], "exact_match"),
        ([f"the old mill near river {n}" for n in range(40)], [], "token_f1"),
        ([STEPS.replace("205", str(n)) for n in range(40)], [], "rouge_l"),
        ([f"今朝、病院の売店が開きました。番号は{n}でございます。" for n in range(40)], [], "rouge_l"),
        ([f"東京{n}" for n in range(40)], [], "exact_match"),
    ],
)  # fmt: skip
def test_the_metric_fits_the_answers(references, choices, metric):
    chosen = decoding_defaults(references, choices)
    assert chosen.metric == metric
    assert chosen.reason


def _package(folder, output, decoding=""):
    folder.mkdir()
    header = f'name: crates\nversion: "1"\nowner: shop\ndescription: Apples.\nlicence: CC0-1.0\n{decoding}'
    (folder / "task.yaml").write_text(header)
    for split in ("train", "validation", "test"):
        rows = [{"instruction": "Solve it.", "input": f"{split} {n}", "output": output} for n in range(2)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_package(folder)


def test_a_package_without_a_limit_gets_one_that_its_references_fit_into(tmp_path):
    read = _package(tmp_path / "long", STEPS)
    assert read.task.decoding.max_new_tokens == answer_limit([STEPS]) >= 68
    assert read.answer_limit_derived


def test_a_named_limit_stays(tmp_path):
    read = _package(tmp_path / "named", STEPS, "decoding:\n  max_new_tokens: 32\n")
    assert (read.task.decoding.max_new_tokens, read.answer_limit_derived) == (32, False)


def test_a_package_of_short_answers_keeps_its_digest(tmp_path, store):
    """The digest is that of the release before limits were derived."""
    read = _package(tmp_path / "short", "205")
    assert (read.task.decoding.max_new_tokens, read.answer_limit_derived) == (32, False)
    assert take_snapshot(read, store).digest == "467631f5d40c31727cf22a8c650ea781f52a531f500fa1a6b614f911c29573f0"
