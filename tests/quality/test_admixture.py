import numpy as np
import pytest

from components.quality.admixture import unlike_rows
from components.quality.drift import GroupProposal, check_drift
from components.quality.drift_report import drift_html
from components.settings import DriftSettings
from components.tasks.rows import Example

SETTINGS = DriftSettings()


def test_a_tenth_of_foreign_rows_is_found_and_named(example, snapshot_of):
    host, foreign = example("booking_slot"), example("passive_voice").rows("train")
    train = list(host.rows("train"))
    planted = np.random.default_rng(0).permutation(600)[:60]
    for place, index in enumerate(planted):
        train[index] = Example(train[index].instruction, foreign[place].input, train[index].output)
    spoilt = snapshot_of(train, host.rows("validation"), host.rows("test"), name="booking_slot", version="2")
    result = check_drift(spoilt, [], SETTINGS)
    assert "look at training rows" in " ".join(result.reasons)
    assert len(result.unlike_rows) == 20
    assert len({row - 1 for row in result.unlike_rows} & set(planted.tolist())) >= 18
    assert "Training rows to look at" in drift_html(result)
    clean = check_drift(host, [], SETTINGS)
    assert clean.unlike_rows == ()
    assert next(e for e in clean.effects if e.name == "unlike_rows").low <= 0


def test_too_few_rows_say_nothing_about_a_tail():
    assert unlike_rows(["a"] * 59, ["b"] * 100, 0) is None
    assert unlike_rows(["a"] * 100, ["b"] * 59, 0) is None


def test_far_is_measured_against_the_group_that_is_joined(snapshot_of):
    def task(text: str, name: str):
        made = [Example("Read it.", f"{text} {i}", "yes") for i in range(30)]
        return snapshot_of(made, made[:2], made[2:4], name=name)

    short, long = task("a line", "short"), task("a much longer line, " * 10, "long")
    new = task("a very long line, " * 8, "new")
    assert check_drift(new, [short, long], SETTINGS).verdict != "extreme"
    joins = GroupProposal("g1", frozenset({short.digest}))
    result = check_drift(new, [short, long], SETTINGS, proposal=joins)
    assert result.verdict == "extreme"
    assert "its group g1" in result.reasons[0]
    assert "release" in result.advice
    assert {e.reference for e in result.effects if e.name == "length_ratio"} == {"its group g1"}
    assert "its group g1" in drift_html(result)


def test_what_the_base_model_cannot_read_is_extreme(snapshot_of):
    def task(text: str, name: str):
        made = [Example("Read it.", f"{text} {i}", "yes") for i in range(40)]
        return snapshot_of(made, made[:2], made[2:4], name=name)

    def read(texts):
        return [6.0 if "qx" in text else 1.5 for text in texts]

    plain, odd = task("a line", "plain"), task("a qxne", "odd")
    result = check_drift(odd, [plain], SETTINGS, read=read)
    assert result.verdict == "extreme"
    assert next(e for e in result.effects if e.name == "surprise").value == pytest.approx(4)
    assert check_drift(odd, [plain], SETTINGS).verdict != "extreme"
    assert check_drift(plain, [task("a lime", "like")], SETTINGS, read=read).verdict != "extreme"


def test_small_steps_of_a_site_add_up(snapshot_of):
    """Each version shares most of its words with the one before; the third has little left of the first."""
    words = [f"{a}{b}" for a in ("kor", "mal", "pit", "sun", "vex", "dro", "bli", "hag") for b in ("an", "ul", "if")]

    def version(number: int, first: int, **fields):
        rng = np.random.default_rng(number)
        made = [Example("Read it.", " ".join(rng.choice(words[first : first + 16], 5)), "yes") for _ in range(200)]
        return snapshot_of(made, made[:2], made[2:4], name="site", version=str(number), **fields)

    one, two, three = version(1, 0), version(2, 1), version(3, 2)
    found = check_drift(three, [one, two], SETTINGS)
    step = next(e for e in found.effects if e.name == "question_auc" and e.reference == "site@2")
    total = next(e for e in found.effects if e.name == "question_auc" and e.reference == "site@1")
    assert step.value < total.value
    slid = "small steps add up" in " ".join(found.reasons)
    assert slid == (step.low <= SETTINGS.known_auc < total.low)
    strict = SETTINGS.model_copy(update={"known_auc": (step.low + total.low) / 2})
    warned = check_drift(three, [one, two], strict)
    assert "small steps add up" in " ".join(warned.reasons)
    assert "site@1" in " ".join(warned.reasons)
    assert warned.verdict != "known"
    assert "small steps" not in " ".join(check_drift(three, [two], strict).reasons)
