"""Signed statements: in-toto statements in DSSE envelopes. A champion is loaded with that of its promotion alone, and a
gateway tries a candidate with that of its trial alone; the type of the predicate keeps the two apart.

A statement file is one line of canonical JSON, `{"envelope", "keys"}`: the envelope in the form any DSSE reader takes,
and the record of each signing key, so that trust in an older key extends to the one that signed. This module needs no
database: it travels with the model.

Sources: https://github.com/secure-systems-lab/dsse, https://in-toto.io/Statement/v1
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from components.audit.keys import RotationRefused, SigningKey, TrustedKeys, key_id, raw
from components.errors import LciaError
from components.storage.objects import Json, NotCanonical, canonical, parse_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:lcia:promotion:v1"
TRIAL_TYPE = "urn:lcia:trial:v1"
FILE = "statement.json"
"""Name of a statement beside a version's manifest."""


class StatementRefused(LciaError):
    """A statement is altered, about another version, or not signed by a trusted key."""


@dataclass(frozen=True)
class Statement:
    """A statement whose every byte was checked."""

    version: str
    """Digest of the version that was promoted, or is tried."""
    predicate: Mapping[str, Any]
    """The decision, or the trial's start: by whom, on which evidence, and its entry in the log."""
    key: str
    """Id of the key that signed."""


def payload(
    assistant: str, number: int, version: str, predicate: Mapping[str, Json], kind: str = PREDICATE_TYPE
) -> dict[str, Json]:
    """The in-toto statement about a version; its digest is the sha256 of the version's manifest."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f"{assistant}/{number}", "digest": {"sha256": version}}],
        "predicateType": kind,
        "predicate": dict(predicate),
    }


def sign(key: SigningKey, statement: Mapping[str, Json], records: Sequence[Mapping[str, Json]]) -> bytes:
    """Statement file: `statement` in an envelope signed by `key`; `records`: those of each key, oldest first."""
    envelope = Envelope(canonical(dict(statement)), PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key.private, _dsse_key(key.public)))
    return canonical({"envelope": envelope.to_dict(), "keys": [dict(record) for record in records]}) + b"\n"


def read(content: bytes, key: Ed25519PublicKey | None, version: str | None = None) -> Statement:
    """Check the statement file of a promotion, every byte of it.

    Without `key` the first key in the file is trusted unseen. `version` is the digest it must be about.

    Raises:
        StatementRefused: see the class.
    """
    return _read(content, key, version, PREDICATE_TYPE)


def read_trial(content: bytes, key: Ed25519PublicKey | None, version: str | None = None) -> Statement:
    """Check the statement file of a trial, as `read`; its predicate has `trial` (the number), `kind` and `share`.

    Raises:
        StatementRefused: see the class.
    """
    return _read(content, key, version, TRIAL_TYPE)


def _read(content: bytes, key: Ed25519PublicKey | None, version: str | None, kind: str) -> Statement:
    value = _parse(content, b"\n", {"envelope", "keys"})
    try:
        keys = TrustedKeys.along(value["keys"], key)
    except RotationRefused as error:
        raise StatementRefused(f"the statement's keys are refused: {error}") from error
    envelope, statement = _open(value["envelope"], kind)
    try:
        (signer,) = envelope.signatures
        entries = statement["predicate"]["log"]["entry"] + 1
        (subject,) = statement["subject"]
        about = subject["digest"]["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise StatementRefused(f"the statement is not about one decision, signed by one key: {error!r}") from error
    public = keys.signer(signer, entries)
    if public is None:
        raise StatementRefused(
            f"the statement was signed by key {signer}, expected {', '.join(keys.keys)}; give the log's own public "
            "key (`lcia keys show`)"
        )
    try:
        envelope.verify([_dsse_key(public)], 1)
    except VerificationError as error:
        raise StatementRefused("the statement's signature does not fit it: one of them was changed") from error
    if version not in {None, about}:
        raise StatementRefused(f"the statement is about version {about[:12]}, expected {str(version)[:12]}")
    return Statement(str(about), statement["predicate"], signer)


def _open(value: Json, kind: str) -> tuple[Envelope, dict[str, Any]]:
    """Envelope and in-toto statement; both have to be in canonical form."""
    try:
        envelope = Envelope.from_dict(copy.deepcopy(value))
        if envelope.to_dict() != value or envelope.payload_type != PAYLOAD_TYPE:
            raise StatementRefused(f"the envelope was altered, or does not hold {PAYLOAD_TYPE}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StatementRefused(f"the statement holds no DSSE envelope: {error!r}") from error
    statement = _parse(envelope.payload, b"", {"_type", "subject", "predicateType", "predicate"})
    if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, kind):
        raise StatementRefused(f"the envelope holds {statement['predicateType']!r}, expected {kind}")
    return envelope, statement


def _parse(content: bytes, end: bytes, fields: set[str]) -> dict[str, Any]:
    try:
        value = parse_json(content)
        whole = canonical(value) + end == content
    except NotCanonical as error:
        raise StatementRefused(f"the statement can't be read: {error}") from error
    if not whole or not isinstance(value, dict) or set(value) != fields:
        raise StatementRefused(f"expected a statement file, canonical JSON with {', '.join(sorted(fields))}")
    return value


def _dsse_key(public: Ed25519PublicKey) -> SSlibKey:
    return SSlibKey(key_id(public), "ed25519", "ed25519", {"public": raw(public)})
