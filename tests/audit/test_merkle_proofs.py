"""Proofs of RFC 9162 sections 2.1.3 and 2.1.4: published vectors, and the sections' own words as oracle."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.audit.merkle import (
    check_consistency,
    check_inclusion,
    consistency_path,
    inclusion_path,
    leaf_hash,
    node_hash,
)

VECTORS = json.loads((Path(__file__).parent / "rfc9162_vectors.json").read_text(encoding="utf-8"))
HASHES = [bytes.fromhex(text) for text in VECTORS["hashes"]]


def tree_hash(leaves: list[bytes]) -> bytes:
    """MTH of section 2.1.1."""
    if len(leaves) == 1:
        return leaves[0]
    k = largest_power_below(len(leaves))
    return node_hash(tree_hash(leaves[:k]), tree_hash(leaves[k:]))


def proof(m: int, leaves: list[bytes]) -> list[bytes]:
    """PROOF(m, D_n) of section 2.1.4.1, word for word."""
    return subproof(m, leaves, True)


def subproof(m: int, leaves: list[bytes], b: bool) -> list[bytes]:
    n = len(leaves)
    if m == n:
        return [] if b else [tree_hash(leaves)]
    k = largest_power_below(n)
    if m <= k:
        return [*subproof(m, leaves[:k], b), tree_hash(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), tree_hash(leaves[:k])]


def largest_power_below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda case: case[0])
def test_published_inclusion_proofs(case):
    _, index, size, leaf, path, root, valid = case
    assert check_inclusion(HASHES[leaf], index, size, [HASHES[one] for one in path], HASHES[root]) == valid


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda case: case[0])
def test_published_consistency_proofs(case):
    _, first, second, path, first_root, second_root, valid = case
    hashes = [HASHES[one] for one in path]
    assert check_consistency(first, second, hashes, HASHES[first_root], HASHES[second_root]) == valid


def test_the_vectors_are_all_there():
    assert [len(VECTORS[kind]) for kind in ("inclusion", "consistency")] == [98, 98]
    assert sum(case[-1] for case in VECTORS["inclusion"] + VECTORS["consistency"]) > 10


@given(st.integers(1, 70), st.data())
@settings(max_examples=120, deadline=None)
def test_consistency_is_proved_for_the_right_trees_only(size, data):
    leaves = [leaf_hash(str(number).encode()) for number in range(size)]
    first = data.draw(st.integers(1, size))
    path = consistency_path(leaves, first)
    assert path == proof(first, leaves)
    old, new = tree_hash(leaves[:first]), tree_hash(leaves)
    assert check_consistency(first, size, path, old, new)
    other = data.draw(st.integers(1, size + 3))
    if other != first:
        assert not check_consistency(other, size, path, old, new)
    changed = leaf_hash(b"another")
    assert not check_consistency(first, size, path, changed, new)
    assert not check_consistency(first, size, path, old, changed)
    assert not check_consistency(first, size, [*path, changed], old, new)
    if path:
        place = data.draw(st.integers(0, len(path) - 1))
        assert not check_consistency(first, size, path[:place] + path[place + 1 :], old, new)
        assert not check_consistency(first, size, [*path[:place], changed, *path[place + 1 :]], old, new)
    rewritten = [changed, *leaves[1:]]
    if size > first > 1:
        forged = consistency_path(rewritten, first)
        assert not check_consistency(first, size, forged, old, tree_hash(rewritten))


def test_there_is_no_proof_beyond_the_tree():
    leaves = [leaf_hash(b"a"), leaf_hash(b"b")]
    for first in (0, 3):
        with pytest.raises(IndexError):
            consistency_path(leaves, first)
    for index in (-1, 2):
        with pytest.raises(IndexError):
            inclusion_path(leaves, index)
    assert not check_inclusion(leaves[0], -1, 2, [leaves[1]], node_hash(*leaves))
