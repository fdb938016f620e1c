"""Cutting missing splits: by question alone, in fixed shares, without leaks."""

from hypothesis import given
from hypothesis import strategies as st

from components.tasks.package import read_package
from components.tasks.rows import Example
from components.tasks.splits import SHARES, cut

texts = st.text(min_size=1, max_size=4)
examples = st.builds(Example, texts, st.none() | texts, texts)
numbered = st.lists(examples, max_size=40).map(lambda rows: list(enumerate(rows, 1)))
missing = st.sets(st.sampled_from(sorted(SHARES)), min_size=1)


@given(numbered, missing)
def test_nothing_is_lost_and_no_question_is_in_two_splits(rows, gone):
    found = cut({"train": rows}, gone)
    assert sorted(number for part in found.values() for number, _ in part) == [number for number, _ in rows]
    homes: dict = {}
    for split, part in found.items():
        for _, row in part:
            homes.setdefault(row.question, set()).add(split)
    assert all(len(splits) == 1 for splits in homes.values())


@given(numbered, numbered, missing)
def test_a_row_stays_where_it_was_whatever_is_added(rows, more, gone):
    def home(found, row):
        return next(split for split, part in found.items() if row in [one for _, one in part])

    before, after = cut({"train": rows}, gone), cut({"train": [*more, *rows]}, gone)
    assert all(home(before, row) == home(after, row) for _, row in rows)


def test_the_shares_are_as_promised():
    rows = [(n, Example(f"question {n}", None, "a")) for n in range(20_000)]
    found = cut({"train": rows}, ["test", "validation"])
    assert abs(len(found["test"]) / len(rows) - 0.2) < 0.01
    assert abs(len(found["validation"]) / len(rows) - 0.1) < 0.01
    alone = cut({"train": rows}, ["validation"])
    assert alone["validation"] == found["validation"]  # the same rows, whether or not test is there


def test_a_package_with_training_rows_alone(make_package):
    rows = [{"instruction": f"Say {n}.", "output": str(n)} for n in range(100)]
    folder = make_package(train=rows)
    for split in ("validation", "test"):
        (folder / f"{split}.jsonl").unlink()
    package = read_package(folder)
    assert package.cut == ("test", "validation")
    assert sum(map(len, package.splits.values())) == len(rows)
    assert all(package.splits.values())
