"""Merkle trees of RFC 9162 (section 2.1): what the log's roots are.

A tree of n leaves is kept as its *peaks*, the roots of its complete subtrees from left to right; their sizes
are the powers of two of n's binary form. Adding a leaf touches at most log2(n) of them.
"""

import hashlib
from collections.abc import Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Tree hash of no leaves (RFC 9162 section 2.1.1)."""

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
    if not 0 <= index < size:
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


def _split(size: int) -> int:
    """Largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _tree_hash(leaves: Sequence[bytes]) -> bytes:
    peaks: Peaks = ()
    for size, leaf in enumerate(leaves):
        peaks = add_leaf(peaks, size, leaf)
    return root_of(peaks)
