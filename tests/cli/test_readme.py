"""What the README and the shipped settings say is true: every command line parses, every key is known."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from components.settings import Settings, load_settings
from lcia.cli import app

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(
    r"^(?:\.venv/bin/)?lcia (.+?)(?: {2,}#.*| && .*)?$", (ROOT / "README.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize("line", COMMANDS)
def test_readme_commands_parse(line: str) -> None:
    words = shlex.split(line.split("#", maxsplit=1)[0])
    group = typer.main.get_command(app)
    context = group.make_context("lcia", words)
    name, command, rest = group.resolve_command(context, words)
    if hasattr(command, "resolve_command"):
        _, command, rest = command.resolve_command(command.make_context(name, list(rest)), list(rest))
    command.make_context(name, list(rest))


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 6


def test_shipped_settings_are_the_defaults_they_show(tmp_path: Path) -> None:
    assert load_settings(ROOT / "zenml.yaml", (), {}, tmp_path).content() == Settings().content()


def test_every_example_task_has_a_readable_package() -> None:
    from components.tasks.package import read_package

    folders = sorted(p for p in (ROOT / "examples" / "tasks").iterdir() if p.is_dir())
    assert [read_package(folder).task.name for folder in folders] == [folder.name for folder in folders]
