"""Decision records have one form, and the index lists each under its own title; `make new-decision` begins one so."""

import re
import runpy
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "decisions"
FORM = re.compile(
    r"# (?P<number>\d{4}): (?P<title>\S.*)\n\nDate: \d{4}-\d\d-\d\d · Status: [a-z].*\n\n"
    r"## Context\n\n[^#].*\n## Decision\n\n[^#].*\n## Consequences\n\n[^#]",
    re.DOTALL,
)


def titles(folder: Path) -> dict[str, str]:
    """By file name, of records that have the form."""
    found = {}
    for path in sorted(folder.glob("[0-9]*.md")):
        head = FORM.match(path.read_text(encoding="utf-8"))
        assert head, f"{path.name}: expected the headings that `make new-decision` writes"
        assert path.name.startswith(head["number"])
        found[path.name] = head["title"].partition("\n")[0]
    return found


def listed(folder: Path) -> list[tuple[str, str]]:
    return re.findall(r"^- \[\d{4}\]\((.+?)\) (.+)$", (folder / "index.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_record_has_the_form_and_is_listed_once_under_its_title() -> None:
    assert sorted(listed(FOLDER)) == sorted(titles(FOLDER).items())


def test_every_record_that_a_record_names_is_there() -> None:
    for path in FOLDER.glob("*.md"):
        for target in re.findall(r"\]\((\d{4}-[^)#]+)", path.read_text(encoding="utf-8")):
            assert (FOLDER / target).exists(), f"{path.name} names {target}"


def test_a_new_record_has_the_next_number_and_is_listed(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "decisions")
    create = runpy.run_path(str(FOLDER / "new.py"))["create"]
    before = titles(folder)
    first = create(folder, 'Why "x" stays: it\'s smaller', datetime(2027, 1, 31, tzinfo=UTC))
    second = create(folder, "Another", datetime(2027, 1, 31, tzinfo=UTC))
    number = max(int(name[:4]) for name in before) + 1
    assert [first.name, second.name] == [f"{number:04d}-why-x-stays-it-s-smaller.md", f"{number + 1:04d}-another.md"]
    assert "Date: 2027-01-31 · Status: proposed" in first.read_text(encoding="utf-8")
    assert listed(folder)[-2:] == [(first.name, 'Why "x" stays: it\'s smaller'), (second.name, "Another")]
    assert sorted(listed(folder)) == sorted(titles(folder).items())


@pytest.mark.parametrize("wrong", ["# 0007 Title", "# 0007: Title\n\nStatus: accepted"])
def test_another_form_is_named(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "0007-title.md").write_text(wrong, encoding="utf-8")
    with pytest.raises(AssertionError, match=r"0007-title\.md"):
        titles(tmp_path)
