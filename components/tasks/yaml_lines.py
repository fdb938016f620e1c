"""YAML as plain values with their lines, for messages that name file, line and key.

Stricter than `yaml.safe_load`: no anchors or aliases (they can grow without bound), no tags, no key twice, no merge
keys, and dates stay text.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from components.tasks.problems import Problem, show

Value: TypeAlias = Any
"""Any plain YAML value; callers check its type."""

MAX_DEPTH = 8
_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_PLAIN = {*_SCALARS, _TIMESTAMP, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


@dataclass(frozen=True)
class Document:
    """A parsed mapping, the line of each of its keys, and the source text of each plain value."""

    values: dict[str, Any]
    lines: dict[tuple[str | int, ...], int]
    texts: dict[tuple[str | int, ...], str]

    def line(self, location: tuple[str | int, ...]) -> int | None:
        """Line of the value at a key path, or of the nearest key above it that exists."""
        for end in range(len(location), 0, -1):
            if location[:end] in self.lines:
                return self.lines[location[:end]]
        return None


class _RefusedError(Exception):
    """Carries a problem out of the recursion; never leaves this module."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


def parse_yaml(text: str, name: str) -> tuple[Document | None, list[Problem]]:
    """Parse one YAML mapping; problems name `name` and the line."""
    try:
        problem = _scan(text, name)
        if problem:
            return None, [problem]
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = None if mark is None else mark.line + 1
        return None, [Problem(name, line, None, error.problem or "a YAML error", "valid YAML")]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return None, [Problem(name, None, None, show(str(error)), "valid YAML")]
    if not isinstance(root, yaml.MappingNode):
        return None, [Problem(name, None, None, "no mapping", "keys and values such as name: my_task")]
    reader = _Reader(name, {}, {})
    try:
        values = reader.value(root, ())
    except _RefusedError as refused:
        return None, [refused.problem]
    return Document(values, reader.lines, reader.texts), []


def _scan(text: str, name: str) -> Problem | None:
    """The first forbidden construct, or None; before anything is built, as PyYAML is quadratic in the nesting depth."""
    depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        line = token.start_mark.line + 1
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
            return Problem(name, line, None, "a YAML anchor or alias", "the value written out")
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > MAX_DEPTH:
            return Problem(name, line, None, f"YAML nested more than {MAX_DEPTH} deep", "flat keys")
    return None


@dataclass(frozen=True)
class _Reader:
    """Builds plain values, and notes the line and the source text of each."""

    name: str
    lines: dict[tuple[str | int, ...], int]
    texts: dict[tuple[str | int, ...], str]

    def value(self, node: yaml.Node, at: tuple[str | int, ...]) -> Value:
        line = node.start_mark.line + 1
        field = ".".join(map(str, at)) or None
        if node.tag not in _PLAIN:
            raise _RefusedError(
                Problem(self.name, line, field, f"the tag {show(node.tag)}", "plain values without tags")
            )
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at, field)
        if isinstance(node, yaml.SequenceNode):
            for index, child in enumerate(node.value):
                self.lines[(*at, index)] = child.start_mark.line + 1
            return [self.value(child, (*at, index)) for index, child in enumerate(node.value)]
        self.texts[at] = node.value
        if node.tag == _TIMESTAMP:
            return node.value
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise _RefusedError(Problem(self.name, line, field, show(node.value), "a plain value")) from error

    def _mapping(self, node: yaml.MappingNode, at: tuple[str | int, ...], field: str | None) -> Value:
        mapping: dict[str, Any] = {}
        for key_node, child in node.value:
            key_line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
                raise _RefusedError(Problem(self.name, key_line, field, "a key that is no text", "a name"))
            if key in mapping:
                raise _RefusedError(Problem(self.name, key_line, key, "the key twice", "each key once"))
            self.lines[(*at, key)] = key_line
            mapping[key] = self.value(child, (*at, key))
        return mapping
