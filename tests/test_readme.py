"""What the README, the documentation and the shipped settings say is true: every command parses, every key is known."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from components.settings import Settings, load_settings
from components.settings.reference import keys, page
from lcia.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Lines of its fences that call `lcia`, without what follows the command."""
    fences = "\n".join(re.findall(r"^```\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    return re.findall(r"^(?:\.venv/bin/)?lcia (.+?)(?: {2,}#.*| && .*| \| .*)?$", fences, re.MULTILINE)


COMMANDS = sorted({command for page in PAGES for command in commands(page)})


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_on_the_pages_parse(line: str) -> None:
    words = shlex.split(line.split("#", maxsplit=1)[0])
    group = typer.main.get_command(app)
    context = group.make_context("lcia", words)
    name, command, rest = group.resolve_command(context, words)
    if hasattr(command, "resolve_command") and rest and not rest[0].startswith("-"):  # else the group's own list
        _, command, rest = command.resolve_command(command.make_context(name, list(rest)), list(rest))
    command.make_context(name, list(rest))


def test_the_pages_show_commands() -> None:
    assert len(commands(ROOT / "README.md")) >= 6
    assert len(commands(ROOT / "docs" / "start.md")) >= 12
    assert len(COMMANDS) >= 40


def test_the_page_of_settings_is_what_the_code_says() -> None:
    shown = (ROOT / "docs" / "settings.md").read_text()
    assert shown == page(), "write it again: lcia settings --markdown > docs/settings.md"


def test_every_setting_says_what_it_means() -> None:
    assert [key.name for key in keys() if len(key.meaning) < 10] == []
    assert {key.name for key in keys("tuning.ema.")} >= {"tuning.ema.rule", "tuning.ema.kappa"}


def test_shipped_settings_are_the_defaults_they_show(tmp_path: Path) -> None:
    assert load_settings(ROOT / "zenml.yaml", (), {}, tmp_path).content() == Settings().content()


def test_every_example_task_has_a_readable_package() -> None:
    from components.tasks.package import read_package

    folders = sorted(p for p in (ROOT / "examples" / "tasks").iterdir() if p.is_dir())
    assert [read_package(folder).task.name for folder in folders] == [folder.name for folder in folders]
