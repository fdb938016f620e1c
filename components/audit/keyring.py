"""The keys that sign a log: a first one, and each later one signed in by the one before.

The log itself holds each change (`key.started`, `key.rotated`), so trust in one key extends to the newest. Only the
newest private key is kept, in one file of one folder; every public key stays beside it.
"""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from components.audit.keys import (
    PRIVATE_NAME,
    PUBLIC_NAME,
    KeyUnusable,
    SigningKey,
    key_id,
    public_pem,
    raw,
    signing_key,
    write_key_file,
)
from components.audit.log import SYSTEM, Actor, append, head
from components.storage.database import Database, now
from components.storage.objects import Json
from components.storage.tables import signing_keys

NEXT = "next"
"""Folder, below that of the keys, of a new key whose log entry may not be written yet."""


def records(connection: Connection) -> list[dict[str, Json]]:
    """Record of each key's entry into the log, oldest first: input of `TrustedKeys.chain`."""
    query = select(signing_keys.c.record).order_by(signing_keys.c.number)
    return [dict(record) for record in connection.execute(query).scalars()]


def keys(connection: Connection) -> list[dict[str, Any]]:
    """Every key: number, id, raw public key, entry of the log that brought it in, and since when it signs."""
    rows = connection.execute(select(signing_keys).order_by(signing_keys.c.number)).mappings()
    return [
        {
            "number": row["number"],
            "id": row["id"],
            "public": row["record"]["public"],
            "entry": row["entry"],
            "since": row["at"].isoformat(),
        }
        for row in rows
    ]


def newest(connection: Connection) -> str | None:
    """Id of the key that signs now; None before the first."""
    query = select(signing_keys.c.id).order_by(signing_keys.c.number.desc()).limit(1)
    return connection.execute(query).scalar_one_or_none()


def current(db: Database, folder: Path, actor: Actor = SYSTEM) -> SigningKey:
    """The key that signs, made and entered in the log on first use.

    Raises:
        KeyUnusable: the private key in `folder` is not the log's newest, or can't be read.
    """
    with db.read() as connection:
        identity = newest(connection)
    if identity is not None:
        _take_over(folder, identity)
        if not (folder / PRIVATE_NAME).exists():
            raise KeyUnusable(
                f"{folder} has no {PRIVATE_NAME}, the log is signed by {identity}; restore it from a backup"
            )
    key = signing_key(folder)
    if identity is None:
        with db.begin() as connection:
            identity = newest(connection)
            if identity is None:
                identity = key.id
                _enter(connection, 0, identity, {"public": raw(key.public)}, "key.started", actor)
    if key.id != identity:
        raise KeyUnusable(
            f"the key in {folder} is {key.id}, the log is signed by {identity}; copy that one here, or let only the "
            "machine that has it sign"
        )
    return key


def rotate(db: Database, folder: Path, actor: Actor, reason: str) -> SigningKey:
    """Make a new key the log's, signed in by the present one; the old private key is deleted, its public one kept.

    Raises:
        KeyUnusable: see `current`.
    """
    old = current(db, folder)
    for file in (PRIVATE_NAME, PUBLIC_NAME):  # left by a rotation that never reached the log
        (folder / NEXT / file).unlink(missing_ok=True)
    new = signing_key(folder / NEXT)
    with db.begin() as connection:
        line = keys(connection)
        if line[-1]["id"] != old.id:
            raise KeyUnusable(f"the log's key became {line[-1]['id']} just now; look at `lcia keys show`")
        record = old.hand_over(new, head(connection))
        _enter(connection, len(line), new.id, record, "key.rotated", actor, reason)
    _take_over(folder, new.id)
    return new


def _enter(
    connection: Connection,
    number: int,
    identity: str,
    record: dict[str, Json],
    action: str,
    actor: Actor,
    why: str = "",
) -> None:
    """Write the row and the log entry, whose details are the record and the reason."""
    details: dict[str, Json] = {"record": record, "reason": why} if why else {"record": record}
    entry = append(connection, action, actor, identity, details)
    values = {"number": number, "id": identity, "record": record, "entry": entry.index, "at": now(connection)}
    connection.execute(insert(signing_keys).values(**values))


def _take_over(folder: Path, identity: str) -> None:
    """Put the new key in the old one's place once the log has it, also after a crash in between."""
    if not (folder / NEXT / PRIVATE_NAME).exists():
        return
    new = signing_key(folder / NEXT)
    if new.id != identity:
        return
    if (folder / PRIVATE_NAME).exists():
        old = signing_key(folder).public
        write_key_file(folder / f"audit-key.{key_id(old)[:16]}.pub.pem", public_pem(old), 0o644, overwrite=True)
    (folder / NEXT / PRIVATE_NAME).replace(folder / PRIVATE_NAME)
    (folder / NEXT / PUBLIC_NAME).unlink(missing_ok=True)
    signing_key(folder)  # writes the public part beside it
