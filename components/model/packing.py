"""Rows of tokens merged into prefix trees, so that a pass reads what they share once and nothing is padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from components.model.vision import Opening

Tokens = Sequence[int]
PACK_TOKENS = 1024
"""Most tokens of one prefix tree: attention over it is dense, so its cost grows with the square."""


@dataclass
class Pack:
    """Rows merged into one prefix tree of tokens, listed depth by depth of each row in turn.

    `paths[k]` are the places of row `rows[k]` in `tokens`; its tokens from `fresh[k]` on are in no row before it.
    """

    tokens: list[int]
    positions: list[int]
    rows: list[int]
    paths: list[Tensor]
    fresh: list[int]
    openings: dict[tuple[int, ...], tuple[Tensor, Opening]] | None = None
    """Decoder inputs of the rows' images, computed at the first use."""


def packs(rows: Sequence[Tokens], limit: int = PACK_TOKENS) -> Iterator[Pack]:
    """Prefix trees over `rows`, in order, each of at most `limit` tokens (one row may exceed it)."""
    pack, tree = Pack([], [], [], [], []), dict[tuple[int, int], int]()
    for index, row in enumerate(rows):
        path, fresh = _insert(tree, row, len(pack.tokens))
        if pack.rows and len(pack.tokens) + len(row) - fresh > limit:
            yield pack
            pack, tree = Pack([], [], [], [], []), {}
            path, fresh = _insert(tree, row, 0)
        pack.tokens.extend(row[fresh:])
        pack.positions.extend(range(fresh, len(row)))
        pack.rows.append(index)
        pack.paths.append(torch.tensor(path))
        pack.fresh.append(fresh)
    if pack.rows:
        yield pack


def _insert(tree: dict[tuple[int, int], int], row: Tokens, size: int) -> tuple[list[int], int]:
    """Places of the row's tokens in a tree of `size` tokens, and how many of them were there already."""
    path: list[int] = []
    fresh = len(row)
    place = -1
    for depth, token in enumerate(row):
        child = tree.get((place, token))
        if child is None:
            fresh = min(fresh, depth)
            child = tree[place, token] = size
            size += 1
        place = child
        path.append(place)
    return path, fresh


def batches_of_similar(rows: Sequence[Tokens], batch_rows: int) -> Iterator[list[int]]:
    """Indices of `rows` in batches; sorted by their tokens, so that rows of a batch share most."""
    order = sorted(range(len(rows)), key=lambda i: (tuple(rows[i]), i))
    for start in range(0, len(order), batch_rows):
        yield order[start : start + batch_rows]
