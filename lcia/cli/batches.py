"""Requests of a file with one JSON object a line."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from components.errors import LciaError

if TYPE_CHECKING:
    from components.settings import Fallback

PORTION = 200
"""Requests that are routed at once."""
MOST_BYTES = 64 * 1024 * 1024


class BatchRefused(LciaError):
    """A file of requests, or the arguments beside it, that can't be read."""


def requests(instruction: str | None, text: str | None, batch: Path | None) -> list[dict[str, Any]]:
    """The one request, or those of the file.

    Raises:
        BatchRefused: both or neither were given, or a line is no request.
    """
    if (instruction is None) == (batch is None) or (text is not None and batch is not None):
        raise BatchRefused("give either an INSTRUCTION, with --input if it has one, or --batch FILE")
    if batch is None:
        return [{"instruction": instruction, "input": text}]
    from components.tasks.problems import Problem, read_regular

    content = read_regular(batch, str(batch), MOST_BYTES)
    if isinstance(content, Problem):
        raise BatchRefused(f"{batch}: {content.seen}, expected {content.expected}")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BatchRefused(f"{batch}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    rows = [_row(line, f"{batch}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise BatchRefused(f'{batch} holds no request, expected lines such as {{"instruction": "Is this film good?"}}')
    return rows


def _row(line: str, where: str) -> dict[str, Any]:
    shape = 'expected {"instruction": "...", "input": "..."} with an `input` that may be missing'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BatchRefused(f"{where} is not JSON ({error}); {shape}") from error
    if not isinstance(row, dict) or not isinstance(row.get("instruction"), str) or not row["instruction"].strip():
        raise BatchRefused(f"{where} has no instruction; {shape}")
    text = row.get("input")
    if text is not None and not isinstance(text, str):
        raise BatchRefused(f"{where} has an `input` that is no text; {shape}")
    return {"instruction": row["instruction"], "input": text}


def fallback(name: str | None) -> "Fallback | None":
    """A fallback by its name.

    Raises:
        BatchRefused: there is none of that name.
    """
    from components.settings import Fallback

    for one in get_args(Fallback):
        if name == one:
            return one  # type: ignore[no-any-return] # one of the literal's own
    if name is not None:
        raise BatchRefused(f"--fallback is {name!r}, expected {', '.join(get_args(Fallback))}")
    return None


def portions(rows: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    """The requests, some at a time."""
    for start in range(0, len(rows), PORTION):
        yield rows[start : start + PORTION]
