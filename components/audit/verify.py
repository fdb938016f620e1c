"""Checks a log with nothing but its bytes: exported file or live rows.

Found without any key: an altered, removed, inserted or reordered entry. A log that was cut at the end, or
rewritten as a whole by someone with the database's rights, is found by a signed head kept elsewhere. Beside a live log
stands the state, which it has to explain; see `state`.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic_core import from_json, to_json
from sqlalchemy import Connection

from components.audit import keyring
from components.audit.decisions import disownments
from components.audit.keys import Head, HeadRefused, RotationRefused, TrustedKeys, key_id, read_head
from components.audit.log import LogDamaged, head_path, rows
from components.audit.merkle import Peaks, add_leaf, leaf_hash, root_of
from components.audit.state import Ledger
from components.errors import LciaError
from components.storage.objects import Json, NotCanonical, canonical, parse_json

_BODY = {"index", "at", "actor", "action", "subject", "details", "previous"}
_ACTOR = {"name", "assured", "how"}
_ORDER, _ACTOR_ORDER = sorted(_BODY), sorted(_ACTOR)
ROTATED = "key.rotated"


class ExportUnreadable(LciaError):
    """An export or head file that can't be opened."""


@dataclass(frozen=True)
class Verification:
    """What was found."""

    ok: bool
    entries: int
    """Entries that were checked and are good."""
    head: str
    """Merkle root over them."""
    first_bad: int | None
    """Index (from 0) of the first bad entry; None when all is good."""
    message: str
    freshness: str
    """What is known about entries missing at the end."""
    state: str = "not compared"
    """What is known about the tables beside a live log."""
    explained: bool | None = None
    """True if the log explains the tables beside it, False if it does not, None if they were not compared."""

    def to_json(self) -> dict[str, Json]:
        """What `audit verify --json` prints."""
        return {
            "ok": self.ok,
            "entries": self.entries,
            "head": self.head,
            "first_bad": self.first_bad,
            "message": self.message,
            "freshness": self.freshness,
            "state": self.state,
            "explained": self.explained,
        }


@dataclass(frozen=True)
class _StoredEntry:
    """One entry as found: `body` are its canonical bytes."""

    body: bytes
    value: Json
    hash: str
    root: str
    peaks: str | None = None


class _Bad(Exception):
    """Why an entry is bad."""


_SORTS_OTHERWISE = re.compile(rb"[\xee-\xff]")
"""From U+E000 on, RFC 8785's order of keys (by UTF-16) is not that of code points."""
_LARGE = 2**53
_START, _TAIL = b'{"body":', 150
"""What stands before the body of an exported line, and how many bytes after it, its newline included."""


def _plain(value: Json) -> bool:
    """Whether keys are sorted by code point, and there is no number but small integers."""
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
    """Whether it is canonical beyond doubt, has the fields of an entry in this place, and brings in no key."""
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


class _Chain:
    """Replays the log entry by entry, remembering the root at the lengths heads speak of."""

    def __init__(self, lengths: Iterable[int], keys: TrustedKeys | None = None) -> None:
        self.size = 0
        self.previous = ""
        self.peaks: Peaks = ()
        self.keys = keys
        self.roots = {length: root_of(()).hex() for length in lengths if length == 0}
        self._lengths = frozenset(lengths)

    def root(self) -> str:
        return root_of(self.peaks).hex()

    def add_plain(self, line: bytes) -> bool:
        """Add an exported line if it is plainly good; else change nothing and leave it to `add` to say why.

        Checks every byte as `add` does: the body's by its hash and by writing it again, the rest by comparison.
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

    def add(self, entry: _StoredEntry) -> None:
        value = entry.value
        if not isinstance(value, dict) or set(value) != _BODY or not isinstance(value["actor"], dict):
            raise _Bad(f"its body does not have the fields {', '.join(sorted(_BODY))}")
        if set(value["actor"]) != _ACTOR:
            raise _Bad(f"its actor does not have the fields {', '.join(sorted(_ACTOR))}")
        if type(value["index"]) is not int or value["index"] != self.size:
            raise _Bad(f"it says it is entry {value['index']}: entries were removed, inserted or reordered")
        leaf = leaf_hash(entry.body)
        if leaf.hex() != entry.hash:
            raise _Bad(f"its body hashes to {leaf.hex()}, beside it stands {entry.hash}: one was altered")
        if value["previous"] != self.previous:
            raise _Bad("it follows another entry than the one before it: an entry was replaced")
        peaks = add_leaf(self.peaks, self.size, leaf)
        if root_of(peaks).hex() != entry.root:
            raise _Bad("the root beside it is not that of the entries up to it")
        if entry.peaks is not None and " ".join(peak.hex() for peak in peaks) != entry.peaks:
            raise _Bad("the peaks stored beside it are not those of its tree")
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
            raise _Bad("it brings in a key for another log than the entries before it")
        if self.keys is not None:
            try:
                self.keys.follow(record)
            except RotationRefused as error:
                raise _Bad(str(error)) from error


def verify_export(path: Path, public_key: Ed25519PublicKey | None = None, *kept: Path) -> Verification:
    """Check an exported log, every byte of it.

    `kept` are head files kept elsewhere: the log must still contain all they speak of. With `public_key` its
    signature is checked, and that of the head beside the export, which must then exist and be its end. Keys that
    `public_key` handed over to, as the log says, count like itself.

    Raises:
        ExportUnreadable: the export or a head can't be opened.
    """
    files = [*kept]
    beside = head_path(path)
    if beside.exists() or (public_key is not None and not kept):
        files.append(beside)
    try:
        contents = [(str(file), _read(file)) for file in files]
        heads = [(name, read_head(content, None)) for name, content in contents]
        keys = None if public_key is None else TrustedKeys.of(public_key)
        chain = _Chain([known.entries for _, known in heads], keys)
        try:
            _replay_lines(chain, path)
        except (_Bad, NotCanonical) as error:
            return _bad(chain, f"line {chain.size + 1} of {path}", str(error))
        for _, content in contents if keys is not None else ():
            read_head(content, keys)
    except HeadRefused as error:
        return Verification(False, 0, "", None, f"head refused: {error}", "not checked")
    exact = heads[-1][1] if heads and heads[-1][0] == str(beside) else None
    return _conclude(chain, heads, exact, kept_elsewhere=bool(kept), signed=public_key is not None)


def verify_database(
    connection: Connection, *kept: tuple[str, bytes], public_key: Ed25519PublicKey | None = None
) -> Verification:
    """The same checks on the live rows; `kept` are names and contents of head files that were kept elsewhere.

    With `public_key` their signatures are checked: it must be one of the log's own keys, and the keys before it count
    as it does, for their heads were kept too.
    """
    try:
        keys = None if public_key is None else _own_keys(connection, public_key)
        heads = [(name, read_head(content, keys)) for name, content in kept]
    except (HeadRefused, RotationRefused) as error:
        return Verification(False, 0, "", None, f"head refused: {error}", "not checked")
    chain = _Chain([head.entries for _, head in heads])
    ledger = Ledger(_disownments(connection))
    try:
        _replay_rows(chain, connection, ledger)
    except (_Bad, NotCanonical) as error:
        return _bad(chain, f"entry {chain.size} of the database", str(error))
    found = _conclude(chain, heads, None, kept_elsewhere=bool(kept), signed=False)
    told = ledger.compare(connection)
    found = replace(found, state=told.words, explained=told.first is None)
    if not found.ok or told.first is None:
        return found
    message = f"all {chain.size} entries are good, and do not explain the state: {told.first}"
    return replace(found, ok=False, message=message)


def whole_entries(connection: Connection) -> int:
    """How many entries are whole from the beginning on, each with what stands beside it."""
    chain = _Chain([])
    with contextlib.suppress(_Bad, NotCanonical):
        _replay_rows(chain, connection)
    return chain.size


def _disownments(connection: Connection) -> Mapping[int, str]:
    try:
        return disownments(connection)
    except (LogDamaged, KeyError):  # the replay says where
        return {}


def _own_keys(connection: Connection, public_key: Ed25519PublicKey) -> TrustedKeys | None:
    """Every key of the log, if `public_key` is one of them; None before the first is there."""
    records = keyring.records(connection)
    if not records:
        return None
    keys = TrustedKeys.along(records, None)
    if key_id(public_key) not in keys.keys:
        raise RotationRefused(
            f"the database says the log is signed by {', '.join(keys.keys)}, the public key is {key_id(public_key)}"
        )
    return keys


def _replay_lines(chain: _Chain, path: Path) -> None:
    try:
        with path.open("rb") as file:
            for line in file:
                if not chain.add_plain(line):
                    chain.add(_from_line(line))
    except OSError as error:
        raise _unreadable(path, error) from error


def _replay_rows(chain: _Chain, connection: Connection, ledger: Ledger | None = None) -> None:
    for row in rows(connection):
        value = parse_json(row.body)
        if canonical(value) != row.body:
            raise _Bad("its stored bytes are not canonical: they were altered")
        if row.position != chain.size:
            raise _Bad(f"it is stored at position {row.position}: an entry was removed or inserted")
        chain.add(_StoredEntry(row.body, value, row.hash, row.root, row.peaks))
        if (row.action, row.subject) != (value["action"], value["subject"]):
            chain.size -= 1
            raise _Bad("the action or subject stored beside it is not its own")
        if ledger is not None:
            ledger.take(value, row.hash)


def _from_line(line: bytes) -> _StoredEntry:
    if not line.endswith(b"\n"):
        raise _Bad("its line has no end: the file was cut or its last byte changed")
    value = parse_json(line[:-1])
    if canonical(value) != line[:-1]:
        raise _Bad("its bytes are not canonical: they were altered")
    if not isinstance(value, dict) or set(value) != {"body", "hash", "root"}:
        raise _Bad("expected an object of body, hash and root")
    return _StoredEntry(canonical(value["body"]), value["body"], value["hash"], value["root"])


def _bad(chain: _Chain, where: str, why: str) -> Verification:
    message = f"{where} is bad: {why}. The {chain.size} entries before it are good"
    return Verification(False, chain.size, chain.root(), chain.size, message, "not checked")


def _conclude(
    chain: _Chain, heads: list[tuple[str, Head]], exact: Head | None, *, kept_elsewhere: bool, signed: bool
) -> Verification:
    """Compare the replayed chain with the heads that speak of it."""
    for name, known in heads:
        if known.entries > chain.size:
            why = f"{name} speaks of {known.entries} entries, found are {chain.size}: the end was cut off"
            return Verification(False, chain.size, chain.root(), chain.size, why, "cut")
        if chain.roots[known.entries] != known.root:
            why = f"{name} has another root over the first {known.entries} entries: the log was rewritten"
            return Verification(False, chain.size, chain.root(), 0, why, "rewritten")
    if exact is not None and (exact.entries, exact.hash) != (chain.size, chain.previous):
        why = f"the head beside the export speaks of {exact.entries} entries, found are {chain.size}"
        return Verification(False, chain.size, chain.root(), exact.entries, why, "other head")
    if kept_elsewhere:
        longest = max(known.entries for _, known in heads[: len(heads) - (exact is not None)])
        freshness = f"contains everything up to entry {longest} of the head kept elsewhere"
    elif signed:
        freshness = f"signed up to entry {chain.size}; later entries may be missing, freshness not proven"
    else:
        freshness = f"consistent up to entry {chain.size}, freshness not proven"
    return Verification(True, chain.size, chain.root(), None, f"all {chain.size} entries are good", freshness)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ExportUnreadable:
    return ExportUnreadable(f"{path} can't be opened ({error.strerror}); expected a file made by `lcia audit export`")
