"""Sentences for people are written by code and read by people: no code takes them apart or looks into them.

Words are improved again and again, so whatever code needs of them has a field of its own. Stored gate reports of
earlier releases lack such fields: `components.gate.report` reads their words, and nothing else does.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Environment, nodes

ROOT = Path(__file__).parents[1]
PRODUCT = ("lcia", "pipelines", "steps", "components", "infra")
SENTENCES = frozenset({"words", "message", "freshness", "reason", "state"})
"""Fields that hold a sentence; some also hold a name (`state`), which is compared as a whole."""
LISTS = frozenset({"reasons", "marks"})
"""Fields that hold several sentences."""
TEXT = frozenset(
    {
        "count", "endswith", "find", "index", "partition", "removeprefix", "removesuffix", "rfind", "rindex",
        "rpartition", "rsplit", "split", "splitlines", "startswith",
    }
)  # fmt: skip
"""Methods of a text that look into it."""
PATTERNS = frozenset({"findall", "finditer", "fullmatch", "match", "search", "split", "sub"})
"""Methods of a regular expression, and functions of `re`."""
READS_OLD_REPORTS = "components/gate/report.py"
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def field_of(node: ast.AST) -> str | None:
    """The field that `x.field`, `x["field"]` or `x.get("field")` reads, also within `str(...)`."""
    match node:
        case ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
            return name
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(name)), *_]):
            return name
        case ast.Call(func=ast.Name(id="str"), args=[inner]):
            return field_of(inner)
    return None


class Reader(ast.NodeVisitor):
    """Finds the lines of one function, or of a module outside its functions, that read prose."""

    def __init__(self, body: ast.AST) -> None:
        self.lines: list[int] = []
        self.names = (
            {"words"} if isinstance(body, FUNCTIONS) and "words" in {one.arg for one in body.args.args} else set()
        )
        for node in ast.walk(body):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if self.sentence(value):
                    self.names.add(name)
                case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                    pairs = zip(names, values, strict=True)
                    self.names |= {
                        name.id for name, value in pairs if isinstance(name, ast.Name) and self.sentence(value)
                    }
                case ast.NamedExpr(target=ast.Name(id=name), value=value) if self.sentence(value):
                    self.names.add(name)
                case (
                    ast.For(target=ast.Name(id=name), iter=several)
                    | ast.comprehension(target=ast.Name(id=name), iter=several)
                ) if field_of(several) in LISTS:
                    self.names.add(name)
        self.visit(body)

    def sentence(self, node: ast.AST) -> bool:
        named = isinstance(node, ast.Name) and node.id in self.names
        first = isinstance(node, ast.Subscript) and field_of(node.value) in LISTS
        return named or first or field_of(node) in SENTENCES

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            name, parts = node.func.attr, [*node.args, *(keyword.value for keyword in node.keywords)]
            if (name in TEXT and self.sentence(node.func.value)) or (
                name in PATTERNS and any(self.sentence(part) for part in parts)
            ):
                self.lines.append(node.lineno)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(operator, ast.In | ast.NotIn) and self.sentence(right):
                self.lines.append(node.lineno)
        self.generic_visit(node)


def reading(source: str) -> list[int]:
    """Lines of Python that read prose."""
    tree = ast.parse(source)
    parts = [tree, *(node for node in ast.walk(tree) if isinstance(node, FUNCTIONS))]
    return sorted({line for part in parts for line in Reader(part).lines})


def reading_in_template(source: str) -> list[int]:
    """Lines of a Jinja template that read prose."""
    tree = Environment(extensions=["jinja2.ext.i18n"], autoescape=True).parse(source)
    found = []
    for call in tree.find_all(nodes.Call):
        of = call.node.node if isinstance(call.node, nodes.Getattr) and call.node.attr in TEXT else None
        if isinstance(of, nodes.Getattr) and of.attr in SENTENCES:
            found.append(call.lineno)
    for compared in tree.find_all(nodes.Compare):
        for operand in compared.ops:
            right = operand.expr
            if operand.op in ("in", "notin") and isinstance(right, nodes.Getattr) and right.attr in SENTENCES:
                found.append(compared.lineno)
    return sorted(found)


def files(suffix: str) -> Iterator[Path]:
    for room in PRODUCT:
        yield from sorted((ROOT / room).rglob(f"*{suffix}"))


def test_no_code_reads_prose() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files(".py")
        for line in reading(path.read_text(encoding="utf-8"))
        if str(path.relative_to(ROOT)) != READS_OLD_REPORTS
    ]
    assert found == []


def test_no_template_reads_prose() -> None:
    pages = [*files(".html")]
    assert len(pages) > 20
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in pages
        for line in reading_in_template(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_old_reports_are_read_in_one_function() -> None:
    """The one place that the rule leaves out is not a way around it: a single function reads words there."""
    tree = ast.parse((ROOT / READS_OLD_REPORTS).read_text(encoding="utf-8"))
    readers = [node.name for node in ast.walk(tree) if isinstance(node, FUNCTIONS) and Reader(node).lines]
    assert readers == ["_present_row"]


@pytest.mark.parametrize(
    "source",
    [
        'any(f"group {g}," in row["words"] for row in rows)',
        'told = LOOK.search(row["words"])',
        'row["words"].partition(": ")[2]',
        'str(row.get("words")).split(",")',
        'def looks(words: str) -> int:\n    return int(re.search("look (.)", words)[1])',
        'def f(one):\n    text = one.words\n    return text.startswith("drift")',
        'any(mark.endswith("overridden") for mark in one.marks)',
        'for reason in found.reasons:\n    "no rows" in reason',
        '"drift" in found.reasons[0]',
        'verified.state.startswith("the log does not")',
    ],
)
def test_the_rule_can_fail(source: str) -> None:
    assert reading(source)


@pytest.mark.parametrize(
    "source",
    [
        '"; ".join(row["words"] for row in rows)',
        '[row for row in rows if row["words"] not in told]',
        "SENDER_UNKNOWN in candidate.marks",
        'row["verdict"] in ("fail", "inconclusive")',
        "name.partition('@')",
        "WAY.index(item.state)",
    ],
)
def test_the_rule_leaves_what_is_no_reading(source: str) -> None:
    assert reading(source) == []


def test_the_rule_can_fail_in_a_template() -> None:
    assert reading_in_template('\n{% if verified.state.startswith("the log") %}x{% endif %}') == [2]
    assert reading_in_template('{{ "group" in row.words }}') == [1]
    assert reading_in_template('{{ path.startswith("/") }}{{ row.words }}') == []
