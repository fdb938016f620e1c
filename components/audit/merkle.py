"""Merkle trees of RFC 9162 (section 2.1): what the log's roots are.

A tree of n leaves is kept as its *peaks*, the roots of its complete subtrees from left to right; their sizes
are the powers of two of n's binary form. Adding a leaf touches at most log2(n) of them.
"""

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Tree hash of no leaves (RFC 9162 section 2.1.1)."""

HASH_BYTES = 32
Peaks = tuple[bytes, ...]


def leaf_hash(content: bytes) -> bytes:
    """Hash of a leaf: sha256(0x00 || content)."""
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: sha256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def add_leaf(peaks: Peaks, size: int, leaf: bytes) -> Peaks:
    """Peaks of the tree of `size + 1` leaves: `leaf` joins every complete subtree it completes.

    Raises:
        ValueError: `peaks` are not those of a tree of `size` leaves.
    """
    if len(peaks) != size.bit_count():
        raise ValueError(f"a tree of {size} leaves has {size.bit_count()} peaks, not {len(peaks)}")
    grown = list(peaks)
    carry = leaf
    while size & 1:
        carry = node_hash(grown.pop(), carry)
        size >>= 1
    return (*grown, carry)


def root_of(peaks: Peaks) -> bytes:
    """Tree hash of the leaves under `peaks`, joined from the right as RFC 9162 splits them."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Sibling hashes from leaf `index` up to the root (RFC 9162 section 2.1.3.1); `leaves` are leaf hashes.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of a tree of {len(leaves)} leaves")
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_path(leaves[:split], index), _tree_hash(leaves[split:])]
    return [*inclusion_path(leaves[split:], index - split), _tree_hash(leaves[:split])]


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` proves that `leaf` is leaf `index` of the tree of `size` leaves (section 2.1.3.2)."""
    if not 0 <= index < size or len(leaf) != HASH_BYTES:
        return False
    position, last, seen = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if position & 1 or position == last:
            seen = node_hash(sibling, seen)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            seen = node_hash(seen, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and seen == root


def consistency_path(leaves: Sequence[bytes], first: int) -> list[bytes]:
    """Hashes that show the tree of the first `first` leaves to be the beginning of that of all (section 2.1.4.1).

    Empty where both are the same tree; `leaves` are leaf hashes.

    Raises:
        IndexError: `first` is not between 1 and the number of leaves.
    """
    if not 1 <= first <= len(leaves):
        raise IndexError(f"the first {first} leaves of a tree of {len(leaves)}")
    return _subproof(leaves, first, whole=True)


def check_consistency(first: int, second: int, path: Sequence[bytes], first_root: bytes, second_root: bytes) -> bool:
    """Whether `path` proves that the tree of `second` leaves begins with that of `first` leaves (section 2.1.4.2).

    Trees of one size need equal roots and an empty path; the empty tree proves nothing (False).
    """
    if first == second:
        return first > 0 and not path and first_root == second_root
    if not 0 < first < second or not path:
        return False
    hashes = [first_root, *path] if first & (first - 1) == 0 else list(path)
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


def _subproof(leaves: Sequence[bytes], first: int, *, whole: bool) -> list[bytes]:
    """SUBPROOF of section 2.1.4.1; `whole`: the first leaves are a subtree whose root the verifier has."""
    if first == len(leaves):
        return [] if whole else [_tree_hash(leaves)]
    split = _split(len(leaves))
    if first <= split:
        return [*_subproof(leaves[:split], first, whole=whole), _tree_hash(leaves[split:])]
    return [*_subproof(leaves[split:], first - split, whole=False), _tree_hash(leaves[:split])]


def _split(size: int) -> int:
    """Largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _tree_hash(leaves: Sequence[bytes]) -> bytes:
    peaks: Peaks = ()
    for size, leaf in enumerate(leaves):
        peaks = add_leaf(peaks, size, leaf)
    return root_of(peaks)
