"""RFC 9162 trees: published roots, and the recursive definition as oracle."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.audit.merkle import (
    EMPTY_ROOT,
    add_leaf,
    check_inclusion,
    inclusion_path,
    leaf_hash,
    node_hash,
    root_of,
)

# leaves and roots of the certificate-transparency reference implementation (transparency-dev/merkle)
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def tree_hash(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(tree_hash(leaves[:k]), tree_hash(leaves[k:]))


def test_published_roots():
    assert root_of(()) == EMPTY_ROOT
    peaks = ()
    for size, (leaf, root) in enumerate(zip(LEAVES, ROOTS, strict=True)):
        peaks = add_leaf(peaks, size, leaf_hash(bytes.fromhex(leaf)))
        assert root_of(peaks).hex() == root


def test_incremental_roots_equal_the_definition():
    peaks, leaves = (), []
    for size in range(70):
        leaves.append(leaf_hash(str(size).encode()))
        peaks = add_leaf(peaks, size, leaves[-1])
        assert root_of(peaks) == tree_hash(leaves)
        assert len(peaks) == (size + 1).bit_count()
    with pytest.raises(ValueError, match="peaks"):
        add_leaf(peaks, 63, leaves[0])


@given(st.integers(1, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_inclusion_is_proved_for_the_right_leaf_only(size, data):
    leaves = [leaf_hash(str(number).encode()) for number in range(size)]
    root, index = tree_hash(leaves), data.draw(st.integers(0, size - 1))
    path = inclusion_path(leaves, index)
    assert check_inclusion(leaves[index], index, size, path, root)
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        assert not check_inclusion(leaves[index], other, size, path, root)
        assert not check_inclusion(leaves[other], index, size, path, root)
    assert not check_inclusion(leaves[index], index, size, [*path, root], root)
    with pytest.raises(IndexError):
        inclusion_path(leaves, size)
