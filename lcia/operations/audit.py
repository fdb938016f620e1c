"""The log: verify, export, heads, proofs, statements, keys and pages of it, as functions that return plain data."""

import contextlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from components.audit import browsing, heads, keyring, log, mending, proofs, statement
from components.audit.keys import TrustedKeys, public_pem, read_head, read_public_key, read_raw
from components.audit.log import Actor
from components.audit.statement import StatementRefused
from components.audit.verify import ExportUnreadable, Verification, verify_database, verify_export
from components.errors import LciaError
from components.names import same_person
from components.notices import notices
from components.notices.channels import channels
from components.promotion import champion, statements
from components.storage.database import AccountRefused
from components.storage.objects import Json
from lcia.instance import Instance
from lcia.operations.params import FilterUnknown


class ProofUnclear(LciaError):
    """A proof of nothing, or of several things at once."""


def verify(
    instance: Instance | None, export: Path | None = None, key: Path | None = None, kept: Sequence[Path] = ()
) -> Verification:
    """Verify an exported log offline, or the live one with the heads that this machine keeps; people hear of tampering.

    Raises:
        ExportUnreadable, KeyUnusable: a file can't be read.
    """
    if export is not None:
        return verify_export(export, read_public_key(key) if key else None, *kept)
    assert instance is not None  # noqa: S101 - an export or a state
    old_heads = [(str(path), _read(path)) for path in kept] + heads.newest_kept(instance.settings.audit.heads_to)
    own = Path(instance.settings.audit.public_key)
    public = read_public_key(key or own) if key or own.exists() else None
    with instance.db.read() as connection:
        verification = verify_database(connection, *old_heads, public_key=public)
    if not verification.ok:
        with contextlib.suppress(AccountRefused), instance.db.begin() as connection:
            ways = channels(instance.assistant, instance.settings.notify, os.environ)
            notices.tampering(
                connection, instance.assistant, f"log: {verification.message}", verification.message, list(ways)
            )
    return verification


def verify_live(instance: Instance) -> Json:
    """Check every byte of the live log."""
    return verify(instance).to_json()


def export(instance: Instance, path: Path) -> dict[str, Any]:
    """Write the log and its signed head."""
    key = instance.signing_key()
    with instance.db.read() as connection:
        head = log.export(connection, path, key)
    return {"file": str(path), "head_file": str(log.head_path(path)), "entries": head.entries, "head": head.root}


def lines(instance: Instance, start: int = 0, limit: int = 1000) -> Json:
    """Lines of the log as `lcia audit export` writes them, without their line ends."""
    with instance.db.read() as connection:
        return {"lines": [line.decode().rstrip("\n") for line in islice(log.lines(connection, start), limit)]}


def head(instance: Instance) -> dict[str, Any]:
    """The log's head, signed: worth keeping where the database's administrators can't reach."""
    key = instance.signing_key()
    with instance.db.read() as connection:
        newest = log.head(connection)
    return {
        "entries": newest.entries,
        "head": newest.root,
        "at": newest.at,
        "key": key.id,
        "signed": key.sign(newest).decode(),
    }


def keep_head(instance: Instance) -> list[dict[str, Any]]:
    """Send a signed head, and those that still wait, to every place of `audit.heads_to`; returns the fate of each."""
    heads.enqueue(instance.promoter, instance.signing_key(), instance.settings.audit.heads_to)
    keepers = {heads.MLFLOW: instance.registry.keep_head}
    return [vars(delivery) for delivery in heads.deliver(instance.promoter, instance.settings.audit.heads_to, keepers)]


def set_aside(instance: Instance, actor: Actor, reason: str) -> dict[str, Any]:
    """Set the damaged end of the log aside, as the owner of the tables; never behind a signed head that is kept.

    Raises:
        NotMended, AccountRefused: see `mending.set_aside`.
    """
    signed_heads = heads.newest_kept(instance.settings.audit.heads_to)
    with instance.db.read() as connection:
        keys = TrustedKeys.along(keyring.records(connection), None) if keyring.newest(connection) else None
        signed_heads += heads.all_heads(connection)
    old_heads = [(name, read_head(content, keys)) for name, content in signed_heads]
    return mending.set_aside(instance.db, old_heads, actor, reason)


def disown(instance: Instance, entry: int, actor: Actor, reason: str) -> dict[str, Any]:
    """Enter that an entry about the champion was never decided; see `mending.disown`."""
    return mending.disown(instance.db, entry, actor, reason)


def prove(
    instance: Instance, version: str | None = None, entry: int | None = None, since: str | None = None
) -> dict[str, Any]:
    """One proof: of the newest decision about a version, of any entry, or that the log begins with an earlier head.

    Raises:
        ProofUnclear: not exactly one of them is asked for, or the version was never champion.
        ProofRefused, HeadRefused: it can't be proven.
    """
    if sum(value is not None for value in (version, entry, since)) != 1:
        raise ProofUnclear("name one thing to prove: a version, --entry INDEX, or --since HEAD")
    index = _decision(instance, version) if version is not None else entry
    key = instance.signing_key()
    with instance.db.read() as connection:
        if index is None:
            content = proofs.prove_consistency(connection, str(since).encode(), key)
        else:
            content = proofs.prove_inclusion(connection, index, key)
    return {**_proof_fields(proofs.check(content, key.public)), "proof": content.decode()}


def signed_statement(instance: Instance, version: str | None = None) -> dict[str, Any]:
    """The signed in-toto statement of a version's newest promotion (default: the champion), checked.

    Raises:
        StatementRefused: there is none, or it does not hold.
    """
    candidate = instance.version(version)
    if candidate is None:
        raise StatementRefused("there is no champion yet, and nothing was promoted")
    content = statements.content(instance.db, instance.store, instance.assistant, candidate)
    facts = statement.read(content, instance.public_key(), candidate.digest)
    fields = {
        "version": candidate.number,
        "digest": facts.version,
        "key": facts.key,
        "predicate": dict(facts.predicate),
    }
    return {**fields, "statement": content.decode()}


def check_file(path: Path, key: Path | None) -> dict[str, Any]:
    """Check a proof or statement offline; without `key` the keys that came along are taken at their word.

    Raises:
        ProofRefused, StatementRefused, HeadRefused, KeyUnusable, ExportUnreadable.
    """
    content, public = _read(path), read_public_key(key) if key else None
    if content.startswith(b'{"envelope":'):
        facts = statement.read(content, public)
        return {"kind": "statement", "digest": facts.version, "key": facts.key, "predicate": dict(facts.predicate)}
    return _proof_fields(proofs.check(content, public))


def keys(instance: Instance) -> dict[str, Any]:
    """Every key that signed the log, oldest first, with its PEM."""
    with instance.db.read() as connection:
        entries = keyring.keys(connection)
    keys_with_pem = [{**key, "pem": public_pem(read_raw(key["public"])).decode()} for key in entries]
    return {"keys": keys_with_pem, "signs": keys_with_pem[-1]["id"] if keys_with_pem else None}


def init_keys(instance: Instance, actor: Actor) -> dict[str, Any]:
    """Make the key that signs, and enter it in the log; one that is there stays."""
    with instance.db.read() as connection:
        earlier = keyring.newest(connection)
    key = keyring.current(instance.promoter, instance.home / "keys", actor)
    return {"id": key.id, "known": earlier is not None, "folder": str(instance.home / "keys")}


def rotate_key(instance: Instance, actor: Actor, reason: str) -> dict[str, Any]:
    """Make a new key, signed in by the present one; the champion's statement and a head are signed by it at once."""
    old = instance.signing_key()
    new = keyring.rotate(instance.promoter, instance.home / "keys", actor, reason)
    deliveries = instance.tell_registry()
    head_deliveries = keep_head(instance)
    untold = [one.message for one in deliveries if not one.ok] + [
        one["message"] for one in head_deliveries if not one["ok"]
    ]
    return {"from": old.id, "id": new.id, "folder": str(instance.home / "keys"), "not_told": untold}


def _decision(instance: Instance, reference: str) -> int:
    """Log entry of the newest promotion or rollback to a version."""
    version = instance.version(reference)
    assert version is not None  # noqa: S101 - a reference always finds one, or raises
    with instance.db.read() as connection:
        promotions = [one for one in champion.lineage(connection, instance.assistant) if one.version == version.digest]
        if not promotions:
            raise ProofUnclear(f"version {version.number} was never champion, so there is no promotion to prove")
        return statements.entries_of(connection, promotions[-1:])[promotions[-1].epoch].index


def _proof_fields(proof: proofs.Proof) -> dict[str, Any]:
    return {
        "kind": proof.kind,
        "entries": proof.head.entries,
        "head": proof.head.root,
        "entry": dict(proof.entry) if proof.entry is not None else None,
        "first": proof.first.entries if proof.first else None,
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExportUnreadable(f"{path} can't be opened ({error.strerror}); expected a file of `lcia audit`") from error


def text_of(path: Path) -> str:
    """Text of a head file.

    Raises:
        ExportUnreadable: it can't be opened.
        HeadRefused: it is none.
    """
    content = _read(path)
    read_head(content, None)
    return content.decode()


def proof_words(value: dict[str, Any]) -> str:
    """A proof in a sentence."""
    until = f"the log of {value['entries']} entries, root {value['head'][:16]}"
    entry = value["entry"]
    if entry is None:
        return f"{until} begins with the {value['first']} entries of the earlier head"
    who = f"{entry['action']} of {entry['subject'][:12]} by {entry['actor']['name']} at {entry['at']}"
    return f"entry {entry['index']} ({who}) is in {until}"


def statement_words(value: dict[str, Any]) -> str:
    """A statement in a sentence."""
    predicate = value["predicate"]
    yes = ", ".join(one["person"] for one in predicate["approvals"] or ()) or "nobody"
    return (
        f"version {predicate['number']} of {predicate['assistant']} ({value['digest'][:12]}): {predicate['kind']} at "
        f"epoch {predicate['epoch']} by {predicate['by']['name']}, approved by {yes}, gate {predicate['verdict']}; "
        f"entry {predicate['log']['entry']} of the log, signed by key {value['key'][:16]}"
    )


def entries(
    instance: Instance,
    *,
    kind: str | None = None,
    subject: str | None = None,
    person: str | None = None,
    since: datetime | None = None,
    tail: int | None = None,
) -> Json:
    """Entries of the log, oldest first.

    `kind` is an action such as `candidate.approved`, or its first part; `subject` a digest's beginning or a name;
    `since` without a zone is taken as UTC.
    """
    after = None if since is None else since.astimezone(UTC) if since.tzinfo else since.replace(tzinfo=UTC)
    with instance.db.read() as connection:
        matches = [
            entry
            for entry in log.entries(connection)
            if (kind is None or entry.action == kind or entry.action.startswith(f"{kind}."))
            and (subject is None or entry.subject.startswith(subject))
            and (person is None or same_person(entry.actor.name, person))
            and (after is None or datetime.fromisoformat(entry.at) >= after)
        ]
    newest = matches if tail is None else matches[-tail:] if tail else []
    return {"entries": [{**vars(entry), "actor": vars(entry.actor)} for entry in newest]}


def page(
    instance: Instance,
    *,
    kind: str = "",
    person: str = "",
    subject: str = "",
    since: str = "",
    until: str = "",
    before: int | None = None,
) -> dict[str, Any]:
    """A page of the log, newest entries first, with the filters of `entries`; `since` and `until` are days.

    `before` is where to go on: below that index, None at the log's beginning. `full`: as many entries as a page holds.

    Raises:
        FilterUnknown: a day that is none.
    """
    filters = browsing.EntryFilter(kind, person, subject, _day(since), _day(until, end=True))
    with instance.db.read() as connection:
        part = browsing.page(connection, filters, before)
        size = log.count(connection)
    return {"entries": part.entries, "before": part.before, "full": part.full, "size": size}


def entry(instance: Instance, index: int) -> dict[str, Any]:
    """One entry, the canonical text that its hash is made of, and the length of the log.

    Raises:
        EntryUnknown: there is none.
    """
    with instance.db.read() as connection:
        content, body = browsing.entry(connection, index)
        return {"entry": content, "body": body.decode(errors="replace"), "size": log.count(connection)}


def signed_head_at(instance: Instance, size: int) -> bytes:
    """The head of the log when it had `size` entries, signed.

    Raises:
        EntryUnknown: it never had.
    """
    with instance.db.read() as connection:
        head_then = browsing.head_of(connection, size)
    return instance.signing_key().sign(head_then)


def need_size(instance: Instance, size: int) -> None:
    """Refuse a length that the log never had.

    Raises:
        EntryUnknown: see above.
    """
    with instance.db.read() as connection:
        browsing.head_of(connection, size)


def _day(text: str, *, end: bool = False) -> datetime | None:
    try:
        return browsing.day(text, end=end) if text else None
    except ValueError:
        raise FilterUnknown(f"{text!r} is no day, expected one such as 2026-01-31") from None
