"""Keyed hashes of a task's questions and answers, which outlive its rows: leaks still show once the rows are erased.

A plain hash of a short question can be reversed by trying questions. HMAC-SHA256 (RFC 2104) can't be without its key,
which lies in the state folder, readable by its owner only, and is in no object, log or report. Only the worker reads
it; steps compare hashes.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from components.audit.keys import write_key_file
from components.errors import LciaError
from components.storage.objects import ObjectStore, canonical, digest_of
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot
from components.tasks.task_file import SPLITS, Split
from components.words import even_out

KEY_NAME = "leak-key"
KEY_BYTES = 32
HASH_BYTES = 16
"""128 of HMAC's 256 bits: two different rows among 10^9 have the same hash with probability 10^-21."""

Even: TypeAlias = Callable[[str], str]
"""Maps texts that differ only in writing, not in content, to the same text."""


class LeakKeyUnusable(LciaError):
    """The key of the fingerprints is unreadable, of another length, or readable by others."""


@dataclass(frozen=True)
class Fingerprints:
    """Hashes per split, row by row."""

    questions: dict[Split, list[str]]
    """Of the questions."""
    answers: dict[Split, list[str]]
    """Of evened input, images and evened output."""
    stems: dict[Split, list[str]]
    """As an earlier release hashed questions: without a row's options (`asked` in the object)."""
    old_answers: dict[Split, list[str]]
    """As an earlier release hashed answers: only case and white space evened, for every script (`spaced`)."""


def subject_of(example: Example, even: Even = even_out) -> str:
    """Subject of the instruction: the input and the images, or the instruction itself if there is neither."""
    if not example.images:
        return even(example.subject)
    return " ".join((*(picture.digest for picture in example.images), even(example.input or "")))


def answer_of(example: Example, even: Even = even_out) -> tuple[str, str]:
    """Subject and answer of a row, without the words of the instruction."""
    return subject_of(example, even), even(example.output)


def _even_spaces(text: str) -> str:
    return " ".join(text.casefold().split())


def leak_key(folder: Path) -> bytes:
    """The key in `folder`, made on first use with mode 0600; of several processes the first one wins.

    Raises:
        LeakKeyUnusable: it can't be read, has another length, or others may read it.
    """
    path = folder / KEY_NAME
    if not path.exists():
        folder.mkdir(0o755, parents=True, exist_ok=True)  # like the folder of the signing key
        write_key_file(path, secrets.token_bytes(KEY_BYTES), 0o600, overwrite=False)
    try:
        key, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise LeakKeyUnusable(f"{path} can't be read ({error}); restore it from a backup") from error
    if mode & 0o077:
        raise LeakKeyUnusable(f"{path} may be read by others, expected mode 0600; run `chmod 600 {path}`")
    if len(key) != KEY_BYTES:
        raise LeakKeyUnusable(f"{path} holds {len(key)} bytes, expected {KEY_BYTES}; restore it from a backup")
    return key


def key_name(key: bytes) -> str:
    """Name of a key, which tells keys apart without giving one away."""
    return hmac.new(key, b"lcia leak key v1", hashlib.sha256).hexdigest()[:16]


def result_name(task: str, key: bytes) -> str:
    """Key under which the fingerprints of a task are recorded as a result."""
    return digest_of(canonical({"fingerprints": 1, "task": task, "key": key_name(key)}))


def store_fingerprints(snapshot: Snapshot, key: bytes, store: ObjectStore) -> str:
    """Hash every row of a task; returns the object's digest.

    Raises:
        ObjectMissing: rows of the task are gone.
    """
    splits = {split: _hashes(snapshot.rows(split), key) for split in SPLITS}
    record = {"kind": "fingerprints", "schema": 1, "task": snapshot.digest, "key": key_name(key), "splits": splits}
    return store.put_json(record)


def load_fingerprints(store: ObjectStore, digest: str) -> Fingerprints:
    """Read `store_fingerprints` back."""
    splits: dict[Split, Any] = store.get_json(digest)["splits"]
    return Fingerprints(
        {split: hashes["questions"] for split, hashes in splits.items()},
        {split: hashes["answers"] for split, hashes in splits.items()},
        {split: hashes.get("asked", hashes["questions"]) for split, hashes in splits.items()},
        {split: hashes.get("spaced", hashes["answers"]) for split, hashes in splits.items()},
    )


def _hashes(rows: Sequence[Example], key: bytes) -> dict[str, list[str]]:
    """Hashes of a split's rows; an earlier release's only if they differ, by options or scripts without spaces."""
    hashes = {
        "questions": [_hash(key, "question", example.question) for example in rows],
        "answers": [_hash(key, "answer", answer_of(example)) for example in rows],
    }
    stems = [_hash(key, "question", example.stem) for example in rows]
    old_answers = [_hash(key, "answer", answer_of(example, _even_spaces)) for example in rows]
    if stems != hashes["questions"]:
        hashes["asked"] = stems
    if old_answers != hashes["answers"]:
        hashes["spaced"] = old_answers
    return hashes


def _hash(key: bytes, purpose: str, parts: Sequence[str]) -> str:
    return hmac.new(key, canonical([purpose, *parts]), hashlib.sha256).digest()[:HASH_BYTES].hex()
