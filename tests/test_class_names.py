"""One name, one thing: no two classes of the product have the same name, in whatever package they are."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("lcia", "pipelines", "steps", "components", "infra")


def classes(sources: dict[str, str]) -> dict[str, list[str]]:
    """Class -> the modules that define it at their top level or within something."""
    modules = defaultdict(list)
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                modules[node.name].append(name)
    return modules


def twice(sources: dict[str, str]) -> dict[str, list[str]]:
    return {name: modules for name, modules in classes(sources).items() if len(modules) > 1}


def test_no_two_classes_have_one_name() -> None:
    files = [path for room in PRODUCT for path in (ROOT / room).rglob("*.py")]
    sources = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}
    assert len(classes(sources)) > 200
    assert twice(sources) == {}


def test_two_of_one_name_are_found() -> None:
    assert twice({"a": "class Row: ...", "b": "def f():\n    class Row: ...", "c": "class Line: ..."}) == {
        "Row": ["a", "b"]
    }
