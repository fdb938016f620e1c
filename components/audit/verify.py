"""Verification of a log from its bytes alone: an exported file, or the live rows.

An altered, removed, inserted or reordered entry shows without any key. A log that was cut at the end, or rewritten as a
whole by somebody with the database's rights, shows against a signed head kept elsewhere. A live log also has to explain
the state beside it; see `state`.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection

from components.audit import keyring
from components.audit.chain import BadEntry, Chain, StoredEntry
from components.audit.decisions import disownments
from components.audit.keys import Head, HeadRefused, RotationRefused, TrustedKeys, key_id, read_head
from components.audit.ledger import Ledger
from components.audit.log import LogDamaged, head_path, rows
from components.audit.state import compare
from components.errors import LciaError
from components.storage.objects import Json, NotCanonical, canonical, parse_json


class ExportUnreadable(LciaError):
    """An export or head file can't be opened."""


@dataclass(frozen=True)
class Verification:
    """Result of a verification."""

    ok: bool
    entries: int
    """Entries that were checked and are good."""
    head: str
    """Merkle root over them."""
    first_bad: int | None
    """Index (from 0) of the first bad entry; None if all are good."""
    message: str
    freshness: str
    """Clause about entries that may be missing at the end."""
    state: str = "not compared"
    """Clause about the tables beside a live log."""
    explained: bool | None = None
    """True if the log explains the tables beside it, False if it does not, None if they were not compared."""

    def to_json(self) -> dict[str, Json]:
        """The output of `audit verify --json`."""
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


def verify_export(path: Path, public_key: Ed25519PublicKey | None = None, *heads_elsewhere: Path) -> Verification:
    """Check an exported log, every byte of it.

    `heads_elsewhere` are head files kept elsewhere: the log must still contain all their entries. With `public_key`
    their signatures are checked, and that of the head beside the export, which must then exist and be its end. Keys
    that `public_key` handed over to, by the log, count as well.

    Raises:
        ExportUnreadable: the export or a head can't be opened.
    """
    files = [*heads_elsewhere]
    beside = head_path(path)
    if beside.exists() or (public_key is not None and not heads_elsewhere):
        files.append(beside)
    try:
        contents = [(str(file), _read(file)) for file in files]
        heads = [(name, read_head(content, None)) for name, content in contents]
        keys = None if public_key is None else TrustedKeys.of(public_key)
        chain = Chain([head.entries for _, head in heads], keys)
        try:
            _replay_lines(chain, path)
        except (BadEntry, NotCanonical) as error:
            return _bad(chain, f"line {chain.size + 1} of {path}", str(error))
        for _, content in contents if keys is not None else ():
            read_head(content, keys)
    except HeadRefused as error:
        return Verification(False, 0, "", None, f"head refused: {error}", "not checked")
    exact = heads[-1][1] if heads and heads[-1][0] == str(beside) else None
    return _conclude(chain, heads, exact, kept_elsewhere=bool(heads_elsewhere), with_key=public_key is not None)


def verify_database(
    connection: Connection, *heads_elsewhere: tuple[str, bytes], public_key: Ed25519PublicKey | None = None
) -> Verification:
    """The same checks on the live rows; `heads_elsewhere`: names and contents of head files that were kept elsewhere.

    With `public_key` their signatures are checked: it must be one of the log's own keys. The keys before it count as
    well, because their heads were kept, too.
    """
    try:
        keys = None if public_key is None else _own_keys(connection, public_key)
        heads = [(name, read_head(content, keys)) for name, content in heads_elsewhere]
    except (HeadRefused, RotationRefused) as error:
        return Verification(False, 0, "", None, f"head refused: {error}", "not checked")
    chain = Chain([head.entries for _, head in heads])
    ledger = Ledger(_disownments(connection))
    try:
        _replay_rows(chain, connection, ledger)
    except (BadEntry, NotCanonical) as error:
        return _bad(chain, f"entry {chain.size} of the database", str(error))
    result = _conclude(chain, heads, None, kept_elsewhere=bool(heads_elsewhere), with_key=False)
    comparison = compare(ledger, connection)
    result = replace(result, state=comparison.words, explained=comparison.first is None)
    if not result.ok or comparison.first is None:
        return result
    message = f"all {chain.size} entries are good, and do not explain the state: {comparison.first}"
    return replace(result, ok=False, message=message)


def whole_entries(connection: Connection) -> int:
    """Number of good entries from the beginning on, each with its hash, root and peaks."""
    chain = Chain([])
    with contextlib.suppress(BadEntry, NotCanonical):
        _replay_rows(chain, connection)
    return chain.size


def _disownments(connection: Connection) -> Mapping[int, str]:
    try:
        return disownments(connection)
    except (LogDamaged, KeyError):  # the replay says where
        return {}


def _own_keys(connection: Connection, public_key: Ed25519PublicKey) -> TrustedKeys | None:
    """Every key of the log, if `public_key` is one of them; None before there is a first."""
    records = keyring.records(connection)
    if not records:
        return None
    keys = TrustedKeys.along(records, None)
    if key_id(public_key) not in keys.keys:
        raise RotationRefused(
            f"the database says the log is signed by {', '.join(keys.keys)}, the public key is {key_id(public_key)}"
        )
    return keys


def _replay_lines(chain: Chain, path: Path) -> None:
    try:
        with path.open("rb") as file:
            for line in file:
                if not chain.add_plain(line):
                    chain.add(_from_line(line))
    except OSError as error:
        raise _unreadable(path, error) from error


def _replay_rows(chain: Chain, connection: Connection, ledger: Ledger | None = None) -> None:
    for row in rows(connection):
        value = parse_json(row.body)
        if canonical(value) != row.body:
            raise BadEntry("its stored bytes are not canonical: they were altered")
        if row.position != chain.size:
            raise BadEntry(f"it is stored at position {row.position}: an entry was removed or inserted")
        chain.add(StoredEntry(row.body, value, row.hash, row.root, row.peaks))
        if (row.action, row.subject) != (value["action"], value["subject"]):
            chain.size -= 1
            raise BadEntry("the action or subject stored beside it is not its own")
        if ledger is not None:
            ledger.take(value, row.hash)


def _from_line(line: bytes) -> StoredEntry:
    if not line.endswith(b"\n"):
        raise BadEntry("its line has no end: the file was cut or its last byte changed")
    value = parse_json(line[:-1])
    if canonical(value) != line[:-1]:
        raise BadEntry("its bytes are not canonical: they were altered")
    if not isinstance(value, dict) or set(value) != {"body", "hash", "root"}:
        raise BadEntry("expected an object of body, hash and root")
    return StoredEntry(canonical(value["body"]), value["body"], value["hash"], value["root"])


def _bad(chain: Chain, where: str, why: str) -> Verification:
    message = f"{where} is bad: {why}. The {chain.size} entries before it are good"
    return Verification(False, chain.size, chain.root(), chain.size, message, "not checked")


def _conclude(
    chain: Chain, heads: list[tuple[str, Head]], exact: Head | None, *, kept_elsewhere: bool, with_key: bool
) -> Verification:
    """Compare the replayed chain with the heads of the same log."""
    for name, head in heads:
        if head.entries > chain.size:
            why = f"{name} speaks of {head.entries} entries, found are {chain.size}: the end was cut off"
            return Verification(False, chain.size, chain.root(), chain.size, why, "cut")
        if chain.roots[head.entries] != head.root:
            why = f"{name} has another root over the first {head.entries} entries: the log was rewritten"
            return Verification(False, chain.size, chain.root(), 0, why, "rewritten")
    if exact is not None and (exact.entries, exact.hash) != (chain.size, chain.previous):
        why = f"the head beside the export speaks of {exact.entries} entries, found are {chain.size}"
        return Verification(False, chain.size, chain.root(), exact.entries, why, "other head")
    if kept_elsewhere:
        longest = max(head.entries for _, head in heads[: len(heads) - (exact is not None)])
        freshness = f"contains everything up to entry {longest} of the head kept elsewhere"
    elif with_key:
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
