"""Every text of the console is in every catalogue, with the same places for values and the same commands."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from babel.messages.catalog import Message
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.pofile import read_po
from jinja2 import nodes

from lcia.console import labels
from lcia.console.language import FOLDER, LANGUAGES, SOURCE, catalogue
from lcia.console.rendering import environment

CONSOLE = Path(labels.__file__).parent
RULE = Path(__file__).parents[2] / "babel.cfg"
PLACE = re.compile(r"%\((\w+)\)s")
KEPT = re.compile(r"`[^`]+`|\blcia [a-z-]+|[\w./]+\.yaml|--\w+")
"""Commands, options and files: the same in every language."""
OTHERS = [code for code in LANGUAGES if code != SOURCE]

Texts = tuple[str, ...]
"""A message: one text, or singular and plural."""


@cache
def messages() -> frozenset[tuple[str | None, Texts]]:
    """Every message in the sources with its context, found as `make messages` finds it."""
    with RULE.open(encoding="utf-8") as file:
        methods, options = parse_mapping_cfg(file)
    found = extract_from_dir(CONSOLE, methods, options)
    return frozenset((context, texts(text)) for _, _, text, _, context in found)


@cache
def told(code: str) -> dict[tuple[str | None, Texts], Message]:
    """Every message of a catalogue."""
    with (FOLDER / code / "LC_MESSAGES" / "console.po").open("rb") as file:
        return {(one.context, texts(one.id)): one for one in read_po(file, locale=code) if one.id}


def texts(text: str | Texts) -> Texts:
    return text if isinstance(text, tuple) else (text,)


def parsed_templates() -> list[tuple[str, nodes.Template]]:
    loaded = environment(SOURCE)
    return [
        (path.name, loaded.parse(path.read_text(encoding="utf-8"), path.name))
        for path in sorted((CONSOLE / "templates").glob("*.html"))
    ]


def parsed_modules() -> list[tuple[str, ast.Module]]:
    return [(path.name, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(CONSOLE.rglob("*.py"))]


def test_messages_of_every_kind_are_found():
    known = {text for _, ids in messages() for text in ids}
    assert labels.NAMES["champion"] in known  # marked in Python
    assert "Learnt" in known  # a column's title
    assert "Right before, wrong now." in known  # a column's hint
    assert "Overview" in known  # in a template
    assert "%(num)s tasks in %(groups)s groups" in known  # a plural


@pytest.mark.parametrize("code", OTHERS)
def test_a_catalogue_has_every_message_and_no_other(code):
    """`make messages` adds what is missing and takes out what is not asked for any more; people translate."""
    assert sorted(messages() - set(told(code)), key=str) == []
    assert sorted(set(told(code)) - messages(), key=str) == []
    unsaid = [ids for (_, ids), one in told(code).items() if one.fuzzy or not all(texts(one.string))]
    assert unsaid == []


@pytest.mark.parametrize("code", OTHERS)
def test_a_translation_shows_every_value_as_the_source_does(code):
    translations = catalogue(code)
    for context, ids in messages():
        values = {name: f"<{name}>" for name in PLACE.findall(" ".join(ids))}
        for number in (1, 2, 5, 21):
            if len(ids) == 1:
                said = translations.pgettext(context, *ids) if context else translations.gettext(*ids)
            else:
                said = translations.ngettext(*ids, number)
            shown = said % values
            missing = [name for name in PLACE.findall(ids[-1]) if f"<{name}>" not in shown]
            assert missing == [], (ids, said)


@pytest.mark.parametrize("code", OTHERS)
def test_commands_and_files_are_kept_and_nothing_is_markup(code):
    for (_, ids), one in told(code).items():
        for said in texts(one.string):
            assert sorted(KEPT.findall(said)) == sorted(KEPT.findall(ids[-1])), (ids, said)
            assert not re.search(r"[<>]|&\w+;", said), said  # templates trust the catalogue


@pytest.mark.parametrize("code", LANGUAGES)
def test_nothing_is_said_for_nothing(code):
    assert catalogue(code).gettext("") == ""


def test_templates_ask_only_for_messages_that_can_be_found():
    """A message put together at run time is in no catalogue; titles and hints of columns are found at the column."""
    for name, template in parsed_templates():
        for call in template.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name in ("_", "gettext", "ngettext", "pgettext"):
                plain = [isinstance(one, nodes.Const) for one in call.args[: 2 if call.node.name[0] in "np" else 1]]
                of_column = isinstance(call.args[0], nodes.Getattr) and call.args[0].attr in ("title", "hint")
                assert all(plain) or (name == "macros.html" and of_column), f"{name}:{call.lineno}"


def test_python_marks_the_messages_that_it_says():
    for name, module in parsed_modules():
        for call in (node for node in ast.walk(module) if isinstance(node, ast.Call)):
            callee = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            marking = callee in ("_", "say")
            built = [one for one in call.args[:1] if isinstance(one, ast.JoinedStr | ast.BinOp)]
            bare = [one for one in call.args[:1] if callee == "say" and isinstance(one, ast.Constant)]
            assert not (marking and (built or bare)), f"{name}:{call.lineno}"


def test_what_is_shown_as_it_stands_has_no_percent_sign():
    """Names and their hints are never filled with values, so `%%` would be seen."""
    assert [text for text in (*labels.NAMES.values(), *labels.HINTS.values()) if "%" in text] == []


def test_names_with_a_hint_have_words():
    figures = {"Avg.ACC", "New.ACC", "BWT", "Forgetting"}
    assert set(labels.HINTS) - set(labels.NAMES) == figures
