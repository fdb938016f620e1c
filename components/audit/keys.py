"""Ed25519 keys that sign log heads: a signed head that is kept elsewhere shows a log that was cut or rewritten."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from components.errors import LciaError
from components.storage.objects import Json, NotCanonical, canonical, digest_of, parse_json

PRIVATE_NAME = "audit-key.pem"
PUBLIC_NAME = "audit-key.pub.pem"
_CONTEXT = b"lcia log head v1\n"
_ROTATION = b"lcia key rotation v1\n"
"""Set before the signed bytes, so that a signature can't be taken for one over something else."""


class KeyUnusable(LciaError):
    """A key file that is absent, unreadable, readable by others, or no Ed25519 key."""


class HeadRefused(LciaError):
    """A head file that is damaged or not signed by the key it was checked with."""


class RotationRefused(LciaError):
    """A record of a new key that the key before it did not sign."""


@dataclass(frozen=True)
class Head:
    """The state of a log in one line."""

    entries: int
    hash: str
    """Leaf hash of the last entry, '' for an empty log."""
    root: str
    """Merkle root over all entries."""
    at: str
    """Time of the last entry, '' for an empty log."""

    def to_json(self) -> dict[str, Json]:
        """The signed object."""
        return {
            "kind": "log head",
            "schema": 1,
            "entries": self.entries,
            "hash": self.hash,
            "root": self.root,
            "at": self.at,
        }


@dataclass(frozen=True)
class SigningKey:
    """The key pair of one log."""

    private: Ed25519PrivateKey
    public: Ed25519PublicKey

    @property
    def id(self) -> str:
        """Id of the public key."""
        return key_id(self.public)

    def sign(self, head: Head) -> bytes:
        """Head file: canonical JSON of the head, the key's id and the signature, one line."""
        signature = self.private.sign(_CONTEXT + canonical(head.to_json()))
        value = {"head": head.to_json(), "key": key_id(self.public), "signature": signature.hex()}
        return canonical(value) + b"\n"

    def hand_over(self, new: "SigningKey", head: Head) -> dict[str, Json]:
        """Record by which this key makes `new` its successor at the log's present length, signed by both."""
        record = {"from": self.id, "public": raw(new.public), "entries": head.entries, "root": head.root}
        message = _rotation_bytes(record)
        return {**record, "by_old": self.private.sign(message).hex(), "by_new": new.private.sign(message).hex()}


@dataclass
class TrustedKeys:
    """Public keys by id, each with the length of the log at which it handed over (None: it still signs)."""

    keys: dict[str, Ed25519PublicKey] = field(default_factory=dict)
    until: dict[str, int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, public: Ed25519PublicKey) -> "TrustedKeys":
        """One key; `follow` adds those it handed over to."""
        return cls({key_id(public): public}, {key_id(public): None})

    @classmethod
    def chain(cls, records: Iterable[Mapping[str, Json]], first: str | None) -> "TrustedKeys":
        """The keys of a log from the one with id `first` on (None: from the first of all); older ones are not trusted.

        Raises:
            RotationRefused: no key of the records has that id, or one is not signed by the one before.
        """
        keys = cls()
        for record in records:
            if keys.keys:
                keys.follow(record)
                continue
            public = read_raw(str(record.get("public")))
            if first in (None, key_id(public)):
                keys.keys[key_id(public)], keys.until[key_id(public)] = public, None
        if not keys.keys:
            raise RotationRefused(f"none of the keys that came along is the trusted one, {first}")
        return keys

    @classmethod
    def along(cls, records: Json, first: Ed25519PublicKey | None) -> "TrustedKeys":
        """`chain` of the records in a proof: none of them may be altered, trusted or not.

        Raises:
            RotationRefused: see `chain`.
        """
        if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
            raise RotationRefused("expected a list of how each signing key came in")
        whole = cls.chain(records, None)
        first_records = [record for record in records if set(record) == {"public"}]
        if len(whole.keys) != len(records) or first_records != records[:1]:
            raise RotationRefused("the keys that came along are not one line, each signed in by the one before")
        return cls.chain(records, None if first is None else key_id(first))

    def follow(self, record: Mapping[str, Json]) -> None:
        """Trust the key that a trusted one handed over to; records of other keys are ignored.

        Raises:
            RotationRefused: it is not signed by both, or the old key had handed over already.
        """
        if set(record) != {"from", "public", "entries", "root", "by_old", "by_new"}:
            raise RotationRefused("a key rotation without the fields from, public, entries, root, by_old, by_new")
        old = self.keys.get(str(record["from"]))
        if old is None:
            return
        public, message = read_raw(str(record["public"])), _rotation_bytes(record)
        if self.until[str(record["from"])] is not None or type(record["entries"]) is not int:
            raise RotationRefused(f"key {record['from']} hands over a second time")
        for signer, signature in ((old, record["by_old"]), (public, record["by_new"])):
            verify(signer, signature, message, RotationRefused("a key rotation is not signed by both of its keys"))
        self.until[str(record["from"])] = record["entries"]
        self.keys[key_id(public)], self.until[key_id(public)] = public, None

    def signer(self, identity: str, entries: int) -> Ed25519PublicKey | None:
        """The key with this id, if it may sign a log of that many entries."""
        until = self.until.get(identity)
        return None if until is not None and entries > until else self.keys.get(identity)


def verify(public: Ed25519PublicKey, signature: Json, message: bytes, refusal: LciaError) -> None:
    """Raise `refusal` unless `signature`, lower-case hex, is the key's over `message`."""
    try:
        public.verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise refusal from error
    if bytes.fromhex(signature).hex() != signature:
        raise refusal


def key_id(public: Ed25519PublicKey) -> str:
    """sha256 of the raw public key."""
    return digest_of(public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def raw(public: Ed25519PublicKey) -> str:
    """The 32 bytes of a public key as hex."""
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def public_pem(public: Ed25519PublicKey) -> bytes:
    """A public key as PEM."""
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_raw(text: str) -> Ed25519PublicKey:
    """Public key of `raw`.

    Raises:
        RotationRefused: the text is not a public key.
    """
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    except ValueError as error:
        raise RotationRefused(f"{text[:80]!r} is not a raw Ed25519 public key: {error}") from error
    if raw(public) != text:
        raise RotationRefused(f"{text[:80]!r} is not written as 64 lower-case hex digits")
    return public


def _rotation_bytes(record: Mapping[str, Json]) -> bytes:
    fields = {name: record[name] for name in ("from", "public", "entries", "root")}
    return _ROTATION + canonical({"kind": "key rotation", "schema": 1, **fields})


def signing_key(folder: Path) -> SigningKey:
    """The key pair in `folder`, made on first use: private part readable by its owner only.

    Raises:
        KeyUnusable: the private key can't be read, is no Ed25519 key, or others may read it.
    """
    path = folder / PRIVATE_NAME
    if not path.exists():
        _create(folder, path)
    try:
        if path.stat().st_mode & 0o077:
            raise KeyUnusable(f"{path} may be read by others, expected mode 0600; run `chmod 600 {path}`")
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"{path} is not a readable private key ({error}); restore it from a backup") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyUnusable(f"{path} is a {type(private).__name__}, expected an Ed25519 key; restore it from a backup")
    public = private.public_key()
    pem = public_pem(public)
    public_path = folder / PUBLIC_NAME
    if not public_path.exists() or public_path.read_bytes() != pem:
        write_key_file(public_path, pem, 0o644, overwrite=True)
    return SigningKey(private, public)


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Public key of a PEM file.

    Raises:
        KeyUnusable: it can't be read or is no Ed25519 key.
    """
    try:
        public = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"{path} is not a readable public key ({error}); expected {PUBLIC_NAME}") from error
    if not isinstance(public, Ed25519PublicKey):
        raise KeyUnusable(f"{path} is a {type(public).__name__}, expected the Ed25519 key {PUBLIC_NAME}")
    return public


def read_head(content: bytes, keys: Ed25519PublicKey | TrustedKeys | None) -> Head:
    """Head of a head file; its signature is checked when keys are given.

    Raises:
        HeadRefused: any byte is not as it was signed.
    """
    try:
        value = parse_json(content)
        if canonical(value) + b"\n" != content:
            raise HeadRefused("the head file is not in canonical form: its bytes were changed")
    except NotCanonical as error:
        raise HeadRefused(f"the head file can't be read: {error}") from error
    head = _head_from(value)
    if isinstance(keys, Ed25519PublicKey):
        keys = TrustedKeys.of(keys)
    if keys is not None:
        public = keys.signer(value["key"], head.entries)
        if public is None:
            names = ", ".join(keys.keys)
            raise HeadRefused(
                f"the head of {head.entries} entries was signed by key {value['key']}, expected {names}; give the "
                "log's own public key"
                if value["key"] not in keys.keys
                else f"key {value['key']} handed over before the log had {head.entries} entries: it was misused"
            )
        message = _CONTEXT + canonical(value["head"])
        refusal = HeadRefused("the head's signature does not fit its content: one of them was changed")
        verify(public, value["signature"], message, refusal)
    return head


def _head_from(value: Json) -> Head:
    fields = {"entries": int, "hash": str, "root": str, "at": str}
    inner = value.get("head") if isinstance(value, Mapping) else None
    if not isinstance(inner, Mapping) or set(value) != {"head", "key", "signature"}:
        raise HeadRefused("expected a head file: an object of head, key and signature")
    good = all(type(inner.get(name)) is kind for name, kind in fields.items())
    if not good or not isinstance(value["key"], str) or not isinstance(value["signature"], str):
        raise HeadRefused(f"expected a head with {', '.join(fields)}, signed in text")
    head = Head(inner["entries"], inner["hash"], inner["root"], inner["at"])
    if head.to_json() != dict(inner):
        raise HeadRefused("the head holds other fields than a log head of schema 1")
    return head


def _create(folder: Path, path: Path) -> None:
    folder.mkdir(0o755, parents=True, exist_ok=True)  # whatever the umask: nobody else puts a key there
    private = Ed25519PrivateKey.generate()
    write_key_file(
        path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600, overwrite=False
    )


def write_key_file(path: Path, content: bytes, mode: int, *, overwrite: bool) -> None:
    """Write whole or not at all, with `mode`; without `overwrite` the first of several processes wins."""
    handle, name = tempfile.mkstemp(prefix=".key-", dir=path.parent)
    work = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        work.chmod(mode)
        if overwrite:
            work.replace(path)
        else:
            try:
                path.hardlink_to(work)
            except FileExistsError:
                return
    finally:
        work.unlink(missing_ok=True)
