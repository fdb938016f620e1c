"""The chain of a log, replayed entry by entry: hashes, order, Merkle roots and key rotations, every byte of them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from pydantic_core import from_json, to_json

from components.audit.keys import RotationRefused, TrustedKeys
from components.audit.merkle import Peaks, add_leaf, leaf_hash, root_of
from components.storage.objects import Json

_BODY = {"index", "at", "actor", "action", "subject", "details", "previous"}
_ACTOR = {"name", "assured", "how"}
_ORDER, _ACTOR_ORDER = sorted(_BODY), sorted(_ACTOR)
ROTATED = "key.rotated"


@dataclass(frozen=True)
class StoredEntry:
    """One entry, as stored: `body` holds its canonical bytes."""

    body: bytes
    value: Json
    hash: str
    root: str
    peaks: str | None = None


class BadEntry(Exception):
    """An entry is bad; with the reason."""


_SORTS_OTHERWISE = re.compile(rb"[\xee-\xff]")
"""From U+E000 on, RFC 8785's order of keys (by UTF-16) is not that of code points."""
_LARGE = 2**53
_START, _TAIL = b'{"body":', 150
"""Bytes before the body of an exported line, and number of bytes after it, with the newline."""


def _plain(value: Json) -> bool:
    """True if keys are sorted by code point and all numbers are small integers."""
    if type(value) is dict:
        keys = [*value]
        if len(keys) > 1 and keys != sorted(keys):
            return False
        parts: Iterable[Json] = value.values()
    else:
        parts = value
    for part in parts:
        kind = type(part)
        if kind is str or kind is bool or part is None:
            continue
        if kind is int:
            if not -_LARGE < part < _LARGE:
                return False
        elif kind is float or not _plain(part):
            return False
    return True


def _plain_body(body: bytes, index: int, previous: str) -> bool:
    """True if it is canonical beyond doubt, has the fields of the entry due here, and brings in no key."""
    try:
        value = from_json(body)
    except ValueError:
        return False
    if type(value) is not dict or [*value] != _ORDER or type(value["actor"]) is not dict:
        return False
    if type(value["index"]) is not int or value["index"] != index or value["previous"] != previous:
        return False
    if [*value["actor"]] != _ACTOR_ORDER or value["action"] == ROTATED or not _plain(value):
        return False
    return to_json(value) == body and (body.isascii() or not _SORTS_OTHERWISE.search(body))


class Chain:
    """Replays the log entry by entry and remembers the root at each length that a head is about."""

    def __init__(self, lengths: Iterable[int], keys: TrustedKeys | None = None) -> None:
        self.size = 0
        self.previous = ""
        self.peaks: Peaks = ()
        self.keys = keys
        self.roots = {length: root_of(()).hex() for length in lengths if length == 0}
        self._lengths = frozenset(lengths)

    def root(self) -> str:
        """Merkle root over the entries so far."""
        return root_of(self.peaks).hex()

    def add_plain(self, line: bytes) -> bool:
        """Add an exported line if it is plainly good; else change nothing, so that `add` can give the reason.

        This is the fast path. It checks every byte, as `add` does: the body by its hash and by writing it again, the
        rest by comparison.
        """
        body = line[len(_START) : -_TAIL]
        leaf = sha256(b"\x00" + body).digest()
        peaks = [*self.peaks]
        carry, size = leaf, self.size
        while size & 1:
            carry = sha256(b"\x01" + peaks.pop() + carry).digest()
            size >>= 1
        peaks.append(carry)
        root = carry
        for peak in peaks[-2::-1]:
            root = sha256(b"\x01" + peak + root).digest()
        name = leaf.hex()
        if line[:8] != _START or line[-_TAIL:] != f',"hash":"{name}","root":"{root.hex()}"}}\n'.encode():
            return False
        if not _plain_body(body, self.size, self.previous):
            return False
        self._take(tuple(peaks), name)
        return True

    def add(self, entry: StoredEntry) -> None:
        """Add the next entry.

        Raises:
            BadEntry: it was altered, or does not follow the entries before it.
        """
        value = entry.value
        if not isinstance(value, dict) or set(value) != _BODY or not isinstance(value["actor"], dict):
            raise BadEntry(f"its body does not have the fields {', '.join(sorted(_BODY))}")
        if set(value["actor"]) != _ACTOR:
            raise BadEntry(f"its actor does not have the fields {', '.join(sorted(_ACTOR))}")
        if type(value["index"]) is not int or value["index"] != self.size:
            raise BadEntry(f"it says it is entry {value['index']}: entries were removed, inserted or reordered")
        leaf = leaf_hash(entry.body)
        if leaf.hex() != entry.hash:
            raise BadEntry(f"its body hashes to {leaf.hex()}, beside it stands {entry.hash}: one was altered")
        if value["previous"] != self.previous:
            raise BadEntry("it follows another entry than the one before it: an entry was replaced")
        peaks = add_leaf(self.peaks, self.size, leaf)
        if root_of(peaks).hex() != entry.root:
            raise BadEntry("the root beside it is not that of the entries up to it")
        if entry.peaks is not None and " ".join(peak.hex() for peak in peaks) != entry.peaks:
            raise BadEntry("the peaks stored beside it are not those of its tree")
        if value["action"] == ROTATED:
            self._rotate(value["details"])
        self._take(peaks, leaf.hex())

    def _take(self, peaks: Peaks, name: str) -> None:
        self.peaks, self.previous, self.size = peaks, name, self.size + 1
        if self.size in self._lengths:
            self.roots[self.size] = self.root()

    def _rotate(self, details: Json) -> None:
        """A new key: signed by the one before, over the log as it was."""
        record = details.get("record") if isinstance(details, dict) else None
        if not isinstance(record, dict) or (record.get("entries"), record.get("root")) != (self.size, self.root()):
            raise BadEntry("it brings in a key for another log than the entries before it")
        if self.keys is not None:
            try:
                self.keys.follow(record)
            except RotationRefused as error:
                raise BadEntry(str(error)) from error
