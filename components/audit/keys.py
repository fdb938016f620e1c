"""Ed25519 keys that sign log heads: whoever keeps a signed head notices when the log is cut or rewritten."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
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
"""Set before the signed bytes, so that a signature can't be taken for one over something else."""


class KeyUnusable(LciaError):
    """A key file that is absent, unreadable, readable by others, or no Ed25519 key."""


class HeadRefused(LciaError):
    """A head file that is damaged or not signed by the key it was checked with."""


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

    def sign(self, head: Head) -> bytes:
        """Head file: canonical JSON of the head, the key's id and the signature, one line."""
        signature = self.private.sign(_CONTEXT + canonical(head.to_json()))
        value = {"head": head.to_json(), "key": key_id(self.public), "signature": signature.hex()}
        return canonical(value) + b"\n"


def key_id(public: Ed25519PublicKey) -> str:
    """sha256 of the raw public key."""
    return digest_of(public.public_bytes(Encoding.Raw, PublicFormat.Raw))


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
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
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


def read_head(content: bytes, public: Ed25519PublicKey | None) -> Head:
    """Head of a head file; its signature is checked when a public key is given.

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
    if public is not None:
        if value["key"] != key_id(public):
            raise HeadRefused(
                f"the head was signed by key {value['key']}, expected {key_id(public)}; give the log's own public key"
            )
        try:
            public.verify(bytes.fromhex(value["signature"]), _CONTEXT + canonical(value["head"]))
        except (InvalidSignature, ValueError) as error:
            raise HeadRefused("the head's signature does not fit its content: one of them was changed") from error
        if bytes.fromhex(value["signature"]).hex() != value["signature"]:
            raise HeadRefused("the head's signature is not in lower-case hex: its bytes were changed")
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
    folder.mkdir(parents=True, exist_ok=True)
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
