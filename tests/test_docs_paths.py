"""Every path of this repository that README and the documentation name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "experiments.md"),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
"""Decisions and experiments are history: they name what was there."""
TOPS = "benchmarks|components|docs|examples|infra|k8s|lcia|pipelines|steps|tests"
MADE = {"infra/server/secrets.env", "lcia/console/locale/fr/LC_MESSAGES/console.po"}
"""Files that a command on the page makes."""


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def paths(text: str) -> list[str]:
    """Paths in backticks or fences, without the test or heading behind them."""
    pieces = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    return [
        match.rstrip("/.,")
        for piece in pieces
        for match in re.findall(rf"(?<![\w/.~-])(?:{TOPS})/[\w./*-]*", piece.replace("localhost/lcia", ""))
    ]


def missing(text: str) -> list[str]:
    """Paths that lead nowhere; a `*` has to match something."""
    return [path for path in paths(text) if path not in MADE and not any(ROOT.glob(path))]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_path_on_a_page_is_there(page: Path) -> None:
    assert missing(page.read_text(encoding="utf-8")) == []


def test_a_path_that_leads_nowhere_is_named() -> None:
    text = "`lcia/cli/main.py` and `lcia/nowhere.py`, `k8s/overlays/*`\n```\nlcia submit examples/tasks/no_such\n```"
    assert missing(text) == ["lcia/nowhere.py", "examples/tasks/no_such"]


def test_the_walks_name_files() -> None:
    for name, least in (("architecture.md", 40), ("where.md", 30)):
        assert len(set(paths((ROOT / "docs" / name).read_text(encoding="utf-8")))) >= least


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "docs"], ids=_name)
def test_links_outside_the_site_lead_somewhere(page: Path) -> None:
    """`mkdocs` checks those of docs/."""
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_every_picture_is_shown() -> None:
    shown = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    pictures = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs" / "pictures").rglob("*.png")]
    assert [str(picture) for picture in pictures if f"({picture})" not in shown] == []
