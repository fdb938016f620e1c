"""Instance: the opened state of one assistant, with settings, database, objects, registry and signing key."""

import logging
import os
import pwd
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from components.audit import heads, keyring, log
from components.audit.decisions import ChampionUnexplained, need_decision
from components.audit.keys import SigningKey, read_public_key
from components.audit.log import Actor, ActorUnnamed, LogDamaged
from components.errors import LciaError
from components.gate.attempts import Family, anchor_looks, attempts
from components.grouping.pool import Pool
from components.promotion import candidates, champion, policy, serving_watch, statements, train
from components.promotion.candidates import Candidate
from components.promotion.statements import attest
from components.promotion.superseding import declarations
from components.quality.fingerprints import leak_key
from components.registry import locations
from components.registry.outbox import Delivery, apply_outbox
from components.registry.registry import Registry
from components.settings import Settings
from components.storage.database import Database
from components.storage.objects import ObjectStore
from components.storage.sqlite import sqlite_file
from components.visible import is_plain

LOG = logging.getLogger("lcia.instance")


@dataclass(frozen=True)
class Instance:
    """State of an assistant that a verb works on."""

    home: Path
    settings: Settings
    db: Database
    store: ObjectStore
    registry: Registry
    server_policy: int | None = None
    """Number of the server's own policy in force; None if the policy of the settings is in force."""

    @classmethod
    def open(cls, home: Path, settings: Settings) -> "Instance":
        """Open the state, bringing the database to the newest schema.

        Raises:
            DatabaseLost: the database is empty, but other files show that it decided something; nothing was changed.
        """
        home.mkdir(parents=True, exist_ok=True)
        db = Database(settings.storage.database)
        store = ObjectStore(settings.storage.objects)
        need_database(db, settings, store)
        db.migrate()
        section = settings.registry
        registry = Registry(section.tracking_uri, section.artifacts, section.experiment, settings.assistant, home)
        with db.read() as connection:
            standing = policy.in_force(connection, settings.assistant)
        if standing is not None:  # a server's own policy wins over the file
            settings = settings.model_copy(update={"policy": standing.settings})
        return cls(home, settings, db, store, registry, standing.id if standing else None)

    @property
    def assistant(self) -> str:
        """Name of the assistant."""
        return self.settings.assistant

    def current(self) -> "Instance":
        """Instance under the policy in force now: admins may have accepted another one since this was opened."""
        with self.db.read() as connection:
            standing = policy.in_force(connection, self.assistant)
        if standing is None or standing.id == self.server_policy:
            return self
        if standing.id not in self._later:
            settings = self.settings.model_copy(update={"policy": standing.settings})
            self._later[standing.id] = replace(self, settings=settings, server_policy=standing.id)
        return self._later[standing.id]

    @cached_property
    def _later(self) -> dict[int, "Instance"]:
        """Instances by number of their policy; kept, as each has connections of its own."""
        return {}

    @cached_property
    def promoter(self) -> Database:
        """Database, opened with the account that moves the champion and updates MLflow."""
        url = self.settings.storage.promoter
        return Database(url) if url else self.db

    @cached_property
    def keeper(self) -> Database:
        """Database, opened with the account that withdraws tasks and sweeps."""
        url = self.settings.storage.keeper
        return Database(url) if url else self.db

    def signing_key(self) -> SigningKey:
        """Ed25519 key that signs heads and statements; made and entered in the log at the first call.

        Raises:
            KeyUnusable: the key is not on this machine.
        """
        return keyring.current(self.promoter, self.home / "keys")

    def public_key(self) -> Ed25519PublicKey:
        """Public key that verifies the champion's statement: a file, so that the database can't name a key of its own.

        Raises:
            KeyUnusable: the file does not exist.
        """
        return read_public_key(Path(self.settings.audit.public_key))

    def need_statement(self, version: Candidate) -> None:
        """Refuse the champion if no statement of its promotion is valid; other versions may be tried without one.

        Raises:
            StatementRefused: there is none of the present decision, or it was altered.
            ChampionUnexplained: the log does not explain the champion.
            KeyUnusable: the public key is not on this machine.
        """
        champion_ = self.champion()
        if champion_ is not None and version.digest == champion_.digest:
            statements.need(self.db, self.store, self.assistant, version, self.public_key())

    def leak_key(self) -> bytes:
        """Key of the hashes that leak checks compare; made at the first call."""
        return leak_key(self.home / "keys")

    def champion(self) -> Candidate | None:
        """Version in use, if any."""
        with self.db.read() as connection:
            now = champion.current(connection, self.assistant)
            return candidates.get(connection, self.assistant, now.version) if now else None

    def base(self) -> Candidate | None:
        """Version that the next task is learnt on: the end of the train (`promotion/train.py`), or the champion."""
        with self.db.read() as connection:
            digest = train.end(connection, self.assistant, self.settings.policy.gate)
            return candidates.get(connection, self.assistant, digest) if digest else None

    def version(self, reference: str | int | None) -> Candidate | None:
        """Version by number or digest; None gives the champion."""
        if reference is None:
            return self.champion()
        with self.db.read() as connection:
            return candidates.get(connection, self.assistant, reference)

    def pool(self, digest: str) -> Pool:
        """Pool of a version."""
        return Pool.from_manifest(self.store.get_json(digest))

    def evidence(self, version: Candidate) -> dict[str, Any]:
        """Evidence record of a version."""
        record: dict[str, Any] = self.store.get_json(version.evidence)
        return record

    def learnt(self, digest: str | None) -> list[dict[str, Any]]:
        """Evidence records of what a version and its ancestors learnt, oldest first; not of what learnt nothing.

        A task that was learnt again, since another was taken out, is there once more.
        """
        records: list[dict[str, Any]] = []
        for record in self._line(digest):
            records += [self.store.get_json(link) for link in record.get("relearnt", {}).get("links", ())]
            records += [record] if record["tuning"] is not None else []
        return records

    def evaluation_of(self, digest: str) -> str | None:
        """Evaluation record of a pool, of a version or of a step on the way to one."""
        with self.db.read() as connection:
            versions = candidates.versions(connection, self.assistant)
        for version in reversed(versions):
            record = self.evidence(version)
            links = [*record.get("relearnt", {}).get("links", ()), *record.get("rebase", {}).get("links", ())]
            for one in (record, *map(self.store.get_json, links)):
                if one["candidate"] == digest:
                    return str(one["evaluation"])
        return None

    def lineage(self, digest: str | None) -> list[str]:
        """Evaluation records of a version and its ancestors, oldest first.

        A version on another base model (`lcia rebase`) learnt everything again, so its line begins with it.
        """
        return [str(record["evaluation"]) for record in self._line(digest)]

    def _line(self, digest: str | None) -> list[dict[str, Any]]:
        """Evidence records of a version and its ancestors, oldest first."""
        if digest is None:
            return []
        with self.db.read() as connection:
            line = candidates.ancestors(connection, digest)
        records: list[dict[str, Any]] = []
        for record in map(self.evidence, line):
            if "rebase" in record:
                records = [self.store.get_json(link) for link in record["rebase"]["links"][:-1]]
            records.append(record)
        return records

    def anchor_looks(self, without: Candidate | None = None) -> dict[str, int]:
        """Number of candidates, accepted or not, that were compared with each task's anchor so far.

        A candidate that was carried over counts once; `without` is one that is about to be.
        """
        with self.db.read() as connection:
            versions = candidates.versions(connection, self.assistant)
        evidence = {version.evidence: self.evidence(version) for version in versions}
        origins = {record.get("origin") for record in evidence.values()} | {without.evidence if without else None}
        return anchor_looks(self.store, [str(one["gate"]) for name, one in evidence.items() if name not in origins])

    def next_attempt(self, name: str, owner: str) -> int:
        """Number of the next attempt at a task of this name and owner, counted from 1."""
        family, window = Family(self.assistant, name, owner), self.settings.policy.gate.attempts_window_days
        with self.db.read() as connection:
            return attempts(connection, family, window) + 1

    def replacements(self) -> dict[str, str]:
        """Learnt tasks that people declared replaced: `name@version` -> the same of the task that replaces it."""
        with self.db.read() as connection:
            return declarations(connection, self.assistant)

    def tell_registry(self, *, retry: bool = False) -> list[Delivery]:
        """Sign what was decided, send heads, bring MLflow up to date; failures are returned, never raised.

        With `retry`, rows that MLflow refused are tried again at once.
        """
        deliveries = self.sign()
        if any(one.kind == "champion" for one in deliveries):
            return deliveries
        return [*deliveries, *apply_outbox(self.promoter, self.store, self.registry, statements.newest, retry=retry)]

    def sign(self) -> list[Delivery]:
        """Sign what was decided and which trials began, and send heads; failures are returned, never raised."""
        try:
            with self.db.read() as connection:
                need_decision(connection, self.assistant)
        except (ChampionUnexplained, LogDamaged) as error:
            return [Delivery(0, "champion", "", ok=False, message=f"MLflow is not updated: {error}")]
        places, keepers = self.settings.audit.heads_to, {heads.MLFLOW: self.registry.keep_head}
        return attest(self.promoter, self.store, self.assistant, self.signing_key, places, keepers)

    def serve_again(self) -> list[str]:
        """Make MLflow serve the champion that was decided, if it serves another; sentences on what still fails.

        Raises:
            RegistryError: MLflow can't be reached.
            AccountRefused: the account of this process is for other work.
        """
        difference = serving_watch.watch(self.promoter, self.registry)
        if difference is None:
            return []
        LOG.warning("%s; MLflow is updated again", difference)
        return [f"{difference}; {one.message}" for one in self.tell_registry() if not one.ok]


def actor(name: str | None) -> Actor:
    """Person who acts: the owner of this process as the system knows them, or an asserted name.

    Raises:
        ActorUnnamed: the name is not plain, so that nobody acts as somebody else by mistake.
    """
    if name is not None:
        if name.strip() and not is_plain(name):
            raise ActorUnnamed(
                f"{name!r} holds characters that don't show, or spaces around it; give a plain name with --as"
            )
        return Actor(name, assured=False, how="asserted")
    return Actor(user_name(os.getuid()), assured=True, how="os-user")


def user_name(uid: int) -> str:
    """Name of a user of this system, or `uid N` if it has none (containers with arbitrary user ids).

    The environment (LOGNAME, USER) is not asked, as anybody can set it.
    """
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


class DatabaseLost(LciaError):
    """The database is empty, but other files show that it was not."""


def need_database(db: Database, settings: Settings, store: ObjectStore) -> None:
    """Refuse an empty database beside traces of an earlier one; nothing is made or changed.

    Raises:
        DatabaseLost: names the traces.
    """
    if not is_empty(db, settings.storage.database):
        return
    hints = traces(settings, store)
    if hints:
        raise DatabaseLost(
            f"the database {db.url} is empty, and there is {'; '.join(hints)}: the database is lost or emptied. "
            "Restore it from a backup; nothing was changed. For a new assistant name another state folder (LCIA_HOME)"
        )


def is_empty(db: Database, url: str) -> bool:
    """True if a database does not exist, or has no tables, or no entry in its log; asking does not make it."""
    file = sqlite_file(url)
    if file is not None and (not file.exists() or file.stat().st_size == 0):
        return True
    if db.revisions()[0] is None:
        return True
    with db.read() as connection:
        return log.count(connection) == 0


def traces(settings: Settings, store: ObjectStore) -> list[str]:
    """Sentences on traces that only a state with versions leaves; a server of MLflow is not asked."""
    sentences = [f"a signed head of its log ({name})" for name, _ in heads.newest_kept(settings.audit.heads_to)]
    version = next((file.name for file in store.objects() if _is_version(store, file.name)), None)
    sentences += [f"a version in {store.url} ({version[:12]})"] if version else []
    registry = settings.registry
    if locations.has_alias(registry.tracking_uri, settings.assistant):
        sentences.append(f"a champion of {settings.assistant} in {registry.tracking_uri}")
    return sentences


def _is_version(store: ObjectStore, digest: str) -> bool:
    """True for the manifest of a pool, whose canonical form has this key first."""
    if not store.begins(digest, b'{"assistant":'):
        return False
    try:
        value = store.get_json(digest)
    except LciaError:  # damaged; others will do
        return False
    return isinstance(value, dict) and value.get("kind") == "pool"
