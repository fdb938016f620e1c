"""YAML with lines: what is plain is read with its place, what could surprise is refused with it."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.tasks.yaml_lines import MAX_DEPTH, parse_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.text("abc xyz", max_size=8)
PLAIN = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["name", "rows", "choices"]), PLAIN, min_size=1))
def test_plain_values_are_those_of_safe_load(values) -> None:
    text = yaml.safe_dump(values)
    document, problems = parse_yaml(text, "task.yaml")
    if document is None:
        assert "deep" in str(problems[0])
        return
    assert (document.values, problems) == (yaml.safe_load(text), [])


def test_each_key_and_item_has_its_line() -> None:
    document, _ = parse_yaml("name: a\ndecoding:\n  mode: choose\nchoices:\n- yes\n- 2026-01-01\n", "task.yaml")
    assert document is not None
    assert document.lines == {
        ("name",): 1, ("decoding",): 2, ("decoding", "mode"): 3, ("choices",): 4, ("choices", 0): 5, ("choices", 1): 6,
    }  # fmt: skip
    assert document.line(("decoding", "unknown", 3)) == 2
    assert document.line(("unknown",)) is None
    assert document.values["choices"] == [True, "2026-01-01"]
    assert document.texts["choices", 0] == "yes"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: &x 2\n", 2),
        ("a: 1\na: 2\n", 2),
        ("a: 1\nb: !!python/object:os.system x\n", 2),
        ("a: 1\nb: !!binary aGk=\n", 2),
        ("a: 1\n? [b]\n: 2\n", 2),
        ("a: 1\nb: 'open\n", 3),
        ("a: 1\nb: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1) + "\n", 2),
    ],
)
def test_what_could_surprise_is_refused_with_its_line(text: str, line: int) -> None:
    document, problems = parse_yaml(text, "task.yaml")
    assert document is None
    assert [(problem.file, problem.line) for problem in problems] == [("task.yaml", line)]


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n", "1\n"])
def test_a_file_without_keys_is_refused(text: str) -> None:
    assert parse_yaml(text, "task.yaml")[0] is None


def test_nothing_is_merged() -> None:
    document, _ = parse_yaml("a:\n  <<: {b: 1}\n", "task.yaml")
    assert document is not None
    assert document.values == {"a": {"<<": {"b": 1}}}
