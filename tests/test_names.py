"""Names of people: what does not make another person."""

import pytest

from components.names import fold, same_person


@pytest.mark.parametrize(
    ("left", "right"), [("Ada", "ada"), (" ada ", "ada"), ("\uff41da", "ada"), ("STRASSE", "straße"), ("é", "e\u0301")]
)
def test_case_width_and_blanks_make_no_other_person(left: str, right: str) -> None:
    assert same_person(left, right)
    assert fold(fold(left)) == fold(left)


@pytest.mark.parametrize(("left", "right"), [("ada", "adam"), ("ada", "\u0430da"), ("a da", "ada"), ("", "ada")])
def test_other_letters_do(left: str, right: str) -> None:
    assert not same_person(left, right)
