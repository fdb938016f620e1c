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
Span = tuple[int, int]
"""First leaf, and the one after the last."""


def leaf_hash(content: bytes) -> bytes:
    """Hash of a leaf: sha256(0x00 || content)."""
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(one: bytes, other: bytes) -> bytes:
    """Hash of an inner node: sha256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + one + other).digest()


def add_leaf(peaks: Peaks, size: int, leaf: bytes) -> Peaks:
    """Peaks of the tree of `size + 1` leaves: `leaf` joins every complete subtree it completes.

    Raises:
        ValueError: `peaks` are not those of a tree of `size` leaves.
    """
    if len(peaks) != size.bit_count():
        raise ValueError(f"a tree of {size} leaves has {size.bit_count()} peaks, not {len(peaks)}")
    result = list(peaks)
    carry = leaf
    while size & 1:
        carry = node_hash(result.pop(), carry)
        size >>= 1
    return (*result, carry)


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
    return [_tree_hash(leaves[start:end]) for start, end in inclusion_spans(index, len(leaves))]


def inclusion_spans(index: int, size: int) -> list[Span]:
    """The leaves below each hash of `inclusion_path`.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise IndexError(f"leaf {index} of a tree of {size} leaves")
    spans: list[Span] = []
    start, end = 0, size
    while end - start > 1:
        split = start + _split(end - start)
        if index < split:
            spans.append((split, end))
            end = split
        else:
            spans.append((start, split))
            start = split
    return spans[::-1]


def parts(start: int, end: int) -> list[Span]:
    """Subtrees that make up a span of `inclusion_spans` or `consistency_spans`; `root_of` joins their hashes.

    Each is a single leaf, or complete and the left half of the next larger one: the last peak of the tree of its
    `end` leaves.
    """
    spans: list[Span] = []
    while start < end:
        size = _split(end - start + 1)
        if size > 1 and start & size:
            size >>= 1
        spans.append((start, start + size))
        start += size
    return spans


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """True if `path` proves that `leaf` is leaf `index` of the tree of `size` leaves (section 2.1.3.2)."""
    if not 0 <= index < size or len(leaf) != HASH_BYTES:
        return False
    position, last, value = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if position & 1 or position == last:
            value = node_hash(sibling, value)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and value == root


def consistency_path(leaves: Sequence[bytes], first: int) -> list[bytes]:
    """Hashes that show the tree of the first `first` leaves to be the beginning of that of all (section 2.1.4.1).

    Empty where both are the same tree; `leaves` are leaf hashes.

    Raises:
        IndexError: `first` is not between 1 and the number of leaves.
    """
    return [_tree_hash(leaves[start:end]) for start, end in consistency_spans(first, len(leaves))]


def consistency_spans(first: int, size: int) -> list[Span]:
    """The leaves below each hash of `consistency_path`.

    Raises:
        IndexError: `first` is not between 1 and `size`.
    """
    if not 1 <= first <= size:
        raise IndexError(f"the first {first} leaves of a tree of {size}")
    spans: list[Span] = []
    start, end, whole = 0, size, True  # SUBPROOF; whole: the first leaves are a subtree whose root the verifier has
    while first < end:
        split = start + _split(end - start)
        if first <= split:
            spans.append((split, end))
            end = split
        else:
            spans.append((start, split))
            start, whole = split, False
    return ([] if whole else [(start, end)]) + spans[::-1]


def check_consistency(first: int, second: int, path: Sequence[bytes], first_root: bytes, second_root: bytes) -> bool:
    """True if `path` proves that the tree of `second` leaves begins with that of `first` leaves (section 2.1.4.2).

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


def _split(size: int) -> int:
    """Largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _tree_hash(leaves: Sequence[bytes]) -> bytes:
    peaks: Peaks = ()
    for size, leaf in enumerate(leaves):
        peaks = add_leaf(peaks, size, leaf)
    return root_of(peaks)
