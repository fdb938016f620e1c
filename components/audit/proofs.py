"""Proofs that hold without the log: one entry is in it (inclusion), or an earlier head is its beginning (consistency).

A proof is one line of canonical JSON with the signed heads it is about and the record of each signing key, so the log's
public key is enough to check it. RFC 9162, sections 2.1.3 and 2.1.4.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection

from components.audit import keyring, log
from components.audit.keys import Head, HeadRefused, RotationRefused, SigningKey, TrustedKeys, read_head
from components.audit.merkle import check_consistency, check_inclusion, consistency_spans, inclusion_spans, leaf_hash
from components.errors import LciaError
from components.storage.objects import Json, NotCanonical, canonical, parse_json

INCLUSION, CONSISTENCY = "inclusion proof", "consistency proof"
_HASH = re.compile(r"[0-9a-f]{64}")


class ProofRefused(LciaError):
    """A proof does not prove its claim, or can't be made."""


@dataclass(frozen=True)
class Proof:
    """Content of a proof that was checked to the last byte."""

    kind: str
    head: Head
    """The later head."""
    entry: Mapping[str, Any] | None
    """Inclusion proof: body of the entry that is in the log."""
    first: Head | None
    """Consistency proof: the earlier head."""


def prove_inclusion(connection: Connection, index: int, key: SigningKey) -> bytes:
    """Proof that entry `index` is in the present log, whose head is signed anew.

    Raises:
        ProofRefused: there is no such entry, or the stored log contradicts itself.
    """
    head = log.head(connection)
    if not 0 <= index < head.entries:
        raise ProofRefused(f"the log has no entry {index}; it has {head.entries}, counted from 0")
    row = next(log.rows(connection, index))
    value = {
        "kind": INCLUSION,
        "schema": 1,
        "entry": parse_json(row.body),
        "path": _texts(log.span_hashes(connection, inclusion_spans(index, head.entries))),
        "head": parse_json(key.sign(head)),
        "keys": keyring.records(connection),
    }
    return _seal(value)


def prove_consistency(connection: Connection, first: bytes, key: SigningKey) -> bytes:
    """Proof that the present log, whose head is signed anew, begins with all entries of the head file `first`.

    Raises:
        ProofRefused: it does not, or the stored log contradicts itself.
        HeadRefused: `first` is not a head file.
    """
    early, head = read_head(first, None), log.head(connection)
    if not 0 < early.entries <= head.entries:
        raise ProofRefused(
            f"the head speaks of {early.entries} entries, the log has {head.entries}: it was cut, or is another log's"
        )
    value = {
        "kind": CONSISTENCY,
        "schema": 1,
        "first": parse_json(first),
        "path": _texts(log.span_hashes(connection, consistency_spans(early.entries, head.entries))),
        "head": parse_json(key.sign(head)),
        "keys": keyring.records(connection),
    }
    return _seal(value)


def check(content: bytes, key: Ed25519PublicKey | None) -> Proof:
    """Check a proof, every byte of it; without `key` the first key in the proof is trusted unseen.

    Raises:
        ProofRefused: it proves nothing.
    """
    try:
        value = parse_json(content)
        if canonical(value) + b"\n" != content:
            raise ProofRefused("the proof is not in canonical form: its bytes were changed")
        if not isinstance(value, dict) or type(value.get("schema")) is not int or value["schema"] != 1:
            raise ProofRefused("expected a proof of schema 1, made by `lcia audit prove`")
        keys = TrustedKeys.along(value.get("keys"), key)
        return _read_inclusion(value, keys) if value.get("kind") == INCLUSION else _read_consistency(value, keys)
    except NotCanonical as error:
        raise ProofRefused(f"the proof can't be read: {error}") from error
    except (HeadRefused, RotationRefused) as error:
        raise ProofRefused(f"the proof is refused: {error}") from error


def _read_inclusion(value: Mapping[str, Json], keys: TrustedKeys) -> Proof:
    _need_fields(value, {"kind", "schema", "entry", "path", "head", "keys"})
    head, entry = _head(value["head"], keys), value["entry"]
    index = entry.get("index") if isinstance(entry, dict) else None
    if type(index) is not int or not check_inclusion(
        leaf_hash(canonical(entry)), index, head.entries, _path(value["path"]), bytes.fromhex(head.root)
    ):
        raise ProofRefused("the entry and the path do not lead to the signed root: one of them was altered")
    return Proof(INCLUSION, head, entry, None)


def _read_consistency(value: Mapping[str, Json], keys: TrustedKeys) -> Proof:
    _need_fields(value, {"kind", "schema", "first", "path", "head", "keys"})
    first, head = _head(value["first"], keys), _head(value["head"], keys)
    roots = bytes.fromhex(first.root), bytes.fromhex(head.root)
    if value["kind"] != CONSISTENCY or not check_consistency(first.entries, head.entries, _path(value["path"]), *roots):
        raise ProofRefused("the path does not lead from the first root to the second: the log was rewritten between")
    return Proof(CONSISTENCY, head, None, first)


def _need_fields(value: Mapping[str, Json], fields: set[str]) -> None:
    if set(value) != fields:
        raise ProofRefused(f"expected a proof with the fields {', '.join(sorted(fields))}")


def _head(value: Json, keys: TrustedKeys) -> Head:
    head = read_head(canonical(value) + b"\n", keys)
    if not _HASH.fullmatch(head.root):
        raise ProofRefused(f"{head.root!r} is no root of a log")
    return head


def _path(value: Json) -> list[bytes]:
    if not isinstance(value, list) or not all(isinstance(one, str) and _HASH.fullmatch(one) for one in value):
        raise ProofRefused("expected a path of hashes, 64 lower-case hex digits each")
    return [bytes.fromhex(one) for one in value]


def _texts(path: Sequence[bytes]) -> list[str]:
    return [one.hex() for one in path]


def _seal(value: Json) -> bytes:
    """The proof, after a check by its own keys: altered content of the database is never handed out as proven."""
    content = canonical(value) + b"\n"
    try:
        check(content, None)
    except ProofRefused as error:
        raise ProofRefused(f"no proof can be made: {error}. `lcia audit verify` says what was changed") from error
    return content
