# ruff: noqa: RUF001
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.quality.near_duplicates import near_duplicates
from components.quality.personal import luhn, personal_data
from components.quality.scripts import foreign_scripts
from components.quality.validation import Background, validate
from components.settings import ValidationSettings
from components.tasks.rows import Example


def prose(rng, words: int) -> str:
    return " ".join("".join(rng.choice(list("abcdefghijklmnop"), rng.integers(3, 9))) for _ in range(words))


def row(text: str, output: str = "x") -> Example:
    return Example("Read it.", text, output)


def plain_near(rows):
    """Every pair compared, on sets of shingles as Python writes them."""

    def shingles(text):
        text = " ".join(text.casefold().split())
        return {text[i : i + 5] for i in range(len(text) - 4)}

    sets = [shingles(r.input) for r in rows]
    count = {}
    for each in sets:
        for shingle in each:
            count[shingle] = count.get(shingle, 0) + 1
    limit = max(3, 0.005 * len(rows))
    sets = [{s for s in each if count[s] <= limit} for each in sets]
    out = []
    for place in range(len(rows)):
        again = any(rows[p].question == rows[place].question for p in range(place))
        found = None
        for p in range(place):
            fits = min(len(sets[p]), len(sets[place])) >= 20 and not again
            if fits and len(sets[p] & sets[place]) >= 0.7 * len(sets[p] | sets[place]):
                found = p
                break
        out.append(found)
    return out


def test_near_duplicates_equal_comparing_every_pair():
    rng = np.random.default_rng(0)
    rows = [row(prose(rng, 14)) for _ in range(120)]
    for i in range(0, 20, 2):  # one word of fourteen exchanged
        words = rows[i].input.split()
        words[5] = "zzyzx"
        rows[i + 1] = row(" ".join(words).upper())
    found = near_duplicates(rows)
    assert found == plain_near(rows)
    assert sum(place is not None for place in found) >= 8


THAI = "กขคงจชซญดตถทนบปผพฟมยรลวสหอะาเแโไ"
HANZI = "".join(map(chr, range(0x4E00, 0x4E00 + 1500)))


@pytest.mark.parametrize(("letters", "count"), [(THAI, 80), (HANZI, 40)])
def test_near_duplicates_are_found_in_scripts_without_spaces(letters, count):
    rng = np.random.default_rng(0)
    rows = [row("".join(rng.choice(list(letters), count))) for _ in range(400)]
    for i in range(0, 20, 2):  # a fortieth exchanged
        text = rows[i].input
        rows[i + 1] = row(f"{text[: count // 2]}{letters[0] * (count // 40)}{text[count // 2 + count // 40 :]}")
    found = near_duplicates(rows)
    assert sum(place is not None for place in found[:20]) >= 9
    assert not any(place is not None for place in found[20:])


def test_templated_rows_are_no_near_duplicates(example):
    people = ["doctor", "lawyer", "author", "judge", "artist", "actor", "senator", "student"]
    rows = [row(f"Would you be so kind as to tell the {a} that the {b} is here?") for a, b in product(people, people)]
    assert not any(place is not None for place in near_duplicates(rows))
    task = example("passive_voice")
    assert not any(place is not None for place in near_duplicates(task.rows("train")))


def test_exact_duplicates_and_short_rows_are_left_to_other_rules():
    rng = np.random.default_rng(1)
    text = prose(rng, 14)
    assert near_duplicates([row(text), row(text), row("ab"), row("ab.")]) == [None] * 4
    assert near_duplicates([row(text), replace(row(text), instruction="Read this.")]) == [None, 0]
    assert near_duplicates([]) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("write to bob.smith@example.co.uk", ["e-mail b***@***.uk"]),
        ("call +49 30 1234567 now", ["phone ****67"]),
        ("(555) 123-4567", ["phone ****67"]),
        ("555-123-4567", ["phone ****67"]),
        ("4111 1111 1111 1111", ["card ****1111"]),
        ("5500-0000-0000-0004 or a@b.de", ["e-mail a***@***.de", "card ****0004"]),
        ("1234 5678 9012 3456", []),
        ("2026-11-23 10:15, 12 30 2026, 11/12/2026", []),
        ("version 1.2.3.4, pi is 3.14159265358979, 1,000,000", []),
        ("a table for 4 at 12:00 PM in 25 days", []),
        ("電話は090-1234-5678です", ["phone ****78"]),
        ("連絡先：０９０－１２３４－５６７８まで", ["phone ****78"]),
        ("โทร090-123-4567นะ", ["phone ****67"]),
        ("メールはbob.smith@example.co.jpへ", ["e-mail b***@***.jp"]),
        ("番号は266です。2026年11月30日", []),
    ],
)
def test_personal_data_is_found_and_masked(text, found):
    assert personal_data(text) == found


@given(st.text("0123456789", min_size=12, max_size=15))
def test_exactly_one_check_digit_fits(digits):
    fitting = [d for d in "0123456789" if luhn(digits + d) or len(set(digits + d)) == 1]
    assert len(fitting) >= 1
    assert sum(luhn(digits + d) for d in "0123456789") <= 1


def test_rows_in_another_script_are_named_and_translation_is_not():
    english = [row(f"a line {i}") for i in range(30)]
    mixed = [*english[:29], row("короткая строка")]
    assert foreign_scripts(mixed) == [""] * 29 + ["cyrillic"]
    assert not any(foreign_scripts([row(f"a line {i}", "строка") for i in range(30)]))
    assert not any(foreign_scripts([row("1 + 1", "2")] * 5))


def test_katakana_kanji_and_width_are_no_other_script_in_a_japanese_task():
    japanese = [row(f"今日は天気がとてもよいです{i}") for i in range(30)]
    mixed = [*japanese, row("コンピューター"), row("ｶﾀｶﾅ"), row("東京都千代田区"), row("きょうはいいてんき")]
    assert not any(foreign_scripts(mixed))
    assert not any(foreign_scripts([*[row(f"a line {i}") for i in range(30)], row("Ａ　ｌｉｎｅ")]))


def test_a_japanese_row_in_a_chinese_task_is_named():
    chinese = [row(f"今天天气很好我们去公园{i}") for i in range(30)]
    assert foreign_scripts([*chinese, row("きょうはいいてんき")]) == [""] * 30 + ["kana"]


def test_soft_findings_carry_masked_values_and_long_rows_are_set_aside(snapshot_of):
    def plain(prefix: str, count: int) -> list[Example]:
        return [row(f"{prefix} {i}") for i in range(count)]

    train = plain("train", 199)
    train[4] = row("mail me: jane@example.org")
    train[9] = row("строка")
    train.append(row("long " * 100))
    settings = ValidationSettings(min_rows=5)
    too_long = Background(too_long=lambda _, rows: [200 * (len(r.input) > 400) for r in rows])
    task = snapshot_of(train, plain("validation", 20), plain("test", 20))
    result = validate(task, [], settings, too_long)
    assert result.verdict == "warn"
    found = {check.name: (check.rows, check.found) for check in result.checks if not check.success}
    assert found == {"personal_data": ((5,), ("e-mail j***@***.org",)), "scripts": ((10,), ("cyrillic",))}
    assert [(aside.row, aside.reason) for aside in result.quarantined_rows] == [
        (200, "prompt and answer take 200 tokens, more than the context")
    ]
    assert result.to_json()["suite"] == {"name": "lcia-task-rows", "version": 3}
    strict = settings.model_copy(update={"max_too_long": 0.001})
    assert validate(task, [], strict, too_long).verdict == "refuse"
    assert [one.check for one in validate(task, [], settings).not_checked] == ["context", "reachable"]


def test_another_answer_to_an_earlier_input_warns_within_the_instruction_type(snapshot_of):
    rows = [row(f"line {i}", ("a", "b")[i % 2]) for i in range(20)]
    earlier = snapshot_of(rows, rows[:5], rows[:5], name="earlier")
    changed = [replace(rows[0], instruction="Judge it.", output="b"), *[row(f"new {i}") for i in range(19)]]
    task = snapshot_of(changed, [row(f"v {i}") for i in range(5)], [row(f"t {i}") for i in range(5)])
    settings = ValidationSettings(min_rows=5)
    alike = validate(task, [earlier], settings, Background(same_type=frozenset({earlier.digest})))
    assert [(c.name, c.rows) for c in alike.checks if not c.success] == [("earlier_conflicts", (1,))]
    assert validate(task, [earlier], settings).verdict == "pass"
