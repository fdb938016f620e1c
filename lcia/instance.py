"""One assistant's state on this machine, opened: settings, database, objects, registry, signing key."""

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
from components.gate.attempts import Family, attempts
from components.grouping.pool import Pool
from components.promotion import candidates, champion, policy, serving_watch, statements
from components.promotion.candidates import Candidate
from components.promotion.evidence import anchor_looks
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
    """Everything a verb works on."""

    home: Path
    settings: Settings
    db: Database
    store: ObjectStore
    registry: Registry
    server_policy: int | None = None
    """Number of the server's policy in force; None where that of the settings holds."""

    @classmethod
    def open(cls, home: Path, settings: Settings) -> "Instance":
        """Open the state, bringing the database to the newest schema.

        Raises:
            DatabaseLost: the database is empty beside what it decided; nothing was changed.
        """
        home.mkdir(parents=True, exist_ok=True)
        db = Database(settings.storage.database)
        store = ObjectStore(settings.storage.objects)
        need_database(db, settings, store)
        db.migrate()
        told = settings.registry
        registry = Registry(told.tracking_uri, told.artifacts, told.experiment, settings.assistant, home)
        with db.read() as connection:
            standing = policy.in_force(connection, settings.assistant)
        if standing is not None:  # a server's own, whatever the file says
            settings = settings.model_copy(update={"policy": standing.settings})
        return cls(home, settings, db, store, registry, standing.id if standing else None)

    @property
    def assistant(self) -> str:
        """Name of the assistant."""
        return self.settings.assistant

    def current(self) -> "Instance":
        """The same under the policy in force now: admins may have accepted another one since this was opened."""
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
        """By number of the policy: one each, for each has connections of its own."""
        return {}

    @cached_property
    def promoter(self) -> Database:
        """The database, opened with the account that moves the champion and tells MLflow."""
        url = self.settings.storage.promoter
        return Database(url) if url else self.db

    @cached_property
    def keeper(self) -> Database:
        """The database, opened with the account that withdraws tasks and sweeps."""
        url = self.settings.storage.keeper
        return Database(url) if url else self.db

    def signing_key(self) -> SigningKey:
        """The Ed25519 key that signs heads and statements; made and entered in the log at the first call.

        Raises:
            KeyUnusable: the key is not on this machine.
        """
        return keyring.current(self.promoter, self.home / "keys")

    def public_key(self) -> Ed25519PublicKey:
        """The key that the champion's statement is checked with: a file, so that the database can't name its own.

        Raises:
            KeyUnusable: the file is not there.
        """
        return read_public_key(Path(self.settings.audit.public_key))

    def need_statement(self, version: Candidate) -> None:
        """Refuse the champion where no statement of its promotion holds; others are tried out without one.

        Raises:
            StatementRefused: there is none of the present decision, or one that is altered.
            ChampionUnexplained: the log does not explain the champion.
            KeyUnusable: the public key is not on this machine.
        """
        champion_ = self.champion()
        if champion_ is not None and version.digest == champion_.digest:
            statements.need(self.db, self.store, self.assistant, version, self.public_key())

    def leak_key(self) -> bytes:
        """The key of the hashes that leak checks compare; made at the first call."""
        return leak_key(self.home / "keys")

    def champion(self) -> Candidate | None:
        """The version in use, if any."""
        with self.db.read() as connection:
            now = champion.current(connection, self.assistant)
            return candidates.get(connection, self.assistant, now.version) if now else None

    def version(self, reference: str | int | None) -> Candidate | None:
        """The version by number or digest; None gives the champion."""
        if reference is None:
            return self.champion()
        with self.db.read() as connection:
            return candidates.get(connection, self.assistant, reference)

    def pool(self, digest: str) -> Pool:
        """A version's pool."""
        return Pool.from_manifest(self.store.get_json(digest))

    def evidence(self, version: Candidate) -> dict[str, Any]:
        """A version's evidence record."""
        record: dict[str, Any] = self.store.get_json(version.evidence)
        return record

    def learnt(self, digest: str | None) -> list[dict[str, Any]]:
        """Evidence records of what a version and its ancestors learnt, oldest first.

        A version on another base model (`lcia rebase`) learnt everything again: with it the line begins anew.
        """
        if digest is None:
            return []
        with self.db.read() as connection:
            line = candidates.ancestors(connection, digest)
        found: list[dict[str, Any]] = []
        for record in map(self.evidence, line):
            if "rebase" in record:
                found = [self.store.get_json(link) for link in record["rebase"]["links"][:-1]]
            found.append(record)
        return found

    def lineage(self, digest: str | None) -> list[str]:
        """Evaluation records of a version and its ancestors, oldest first; see `learnt`."""
        return [str(record["evaluation"]) for record in self.learnt(digest)]

    def anchor_looks(self) -> dict[str, int]:
        """By task, how many candidates, accepted or not, were compared with its anchor so far."""
        with self.db.read() as connection:
            known = candidates.versions(connection, self.assistant)
        return anchor_looks(self.store, [str(self.evidence(version)["gate"]) for version in known])

    def next_attempt(self, name: str, owner: str) -> int:
        """The number that the next attempt at a task of this name and owner has, from 1."""
        family, window = Family(self.assistant, name, owner), self.settings.policy.gate.attempts_window_days
        with self.db.read() as connection:
            return attempts(connection, family, window) + 1

    def superseded(self) -> dict[str, str]:
        """Learnt tasks that people declared replaced: `name@version` -> of what replaces it."""
        with self.db.read() as connection:
            return declarations(connection, self.assistant)

    def tell_registry(self, *, retry: bool = False) -> list[Delivery]:
        """Sign what was decided, send heads, bring MLflow up to date; failures are returned, never raised.

        With `retry` rows that MLflow refused are tried again at once.
        """
        try:
            with self.db.read() as connection:
                need_decision(connection, self.assistant)
        except (ChampionUnexplained, LogDamaged) as error:
            return [Delivery(0, "champion", "", ok=False, message=f"MLflow is told nothing: {error}")]
        places, keepers = self.settings.audit.heads_to, {heads.MLFLOW: self.registry.keep_head}
        done = attest(self.promoter, self.store, self.assistant, self.signing_key, places, keepers)
        return [*done, *apply_outbox(self.promoter, self.store, self.registry, statements.newest, retry=retry)]

    def serve_again(self) -> list[str]:
        """Have MLflow serve the champion that was decided where it serves another; words on what is still amiss.

        Raises:
            RegistryError: MLflow can't be reached.
            AccountRefused: this process has an account for other work.
        """
        seen = serving_watch.watch(self.promoter, self.registry)
        if seen is None:
            return []
        LOG.warning("%s; MLflow is told again", seen)
        return [f"{seen}; {one.message}" for one in self.tell_registry() if not one.ok]


def actor(name: str | None) -> Actor:
    """The person who acts: the owner of this process as the system knows them, or an asserted name.

    Raises:
        ActorUnnamed: the name is blank; nobody acts as somebody else by mistake.
    """
    if name is not None:
        if name.strip() and not is_plain(name):
            raise ActorUnnamed(
                f"{name!r} holds signs that don't show, or spaces around it; give a plain name with --as"
            )
        return Actor(name, assured=False, how="asserted")
    return Actor(user_name(os.getuid()), assured=True, how="os-user")


def user_name(uid: int) -> str:
    """The name of a user of this system, or `uid N` where it has none (containers with arbitrary user ids).

    The environment (LOGNAME, USER) is not asked: anybody sets it.
    """
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


class DatabaseLost(LciaError):
    """The database holds nothing, and what stands beside it says that it did."""


def need_database(db: Database, settings: Settings, store: ObjectStore) -> None:
    """Refuse an empty database beside traces of an earlier one; nothing is made or changed.

    Raises:
        DatabaseLost: it says what was seen.
    """
    if not is_empty(db, settings.storage.database):
        return
    seen = traces(settings, store)
    if seen:
        raise DatabaseLost(
            f"the database {db.url} is empty, and there is {'; '.join(seen)}: the database is lost or emptied. Restore "
            "it from a backup; nothing was changed. For a new assistant name another state folder (LCIA_HOME)"
        )


def is_empty(db: Database, url: str) -> bool:
    """True if a database is not there, has no tables or no entry in its log; it is not made by asking."""
    file = sqlite_file(url)
    if file is not None and (not file.exists() or file.stat().st_size == 0):
        return True
    if db.revisions()[0] is None:
        return True
    with db.read() as connection:
        return log.count(connection) == 0


def traces(settings: Settings, store: ObjectStore) -> list[str]:
    """Sentences on what only a state with versions leaves; a server of MLflow is not asked."""
    seen = [f"a signed head of its log ({name})" for name, _ in heads.newest_kept(settings.audit.heads_to)]
    version = next((file.name for file in store.objects() if _is_version(store, file.name)), None)
    seen += [f"a version in {store.url} ({version[:12]})"] if version else []
    registry = settings.registry
    if locations.has_alias(registry.tracking_uri, settings.assistant):
        seen.append(f"a champion of {settings.assistant} in {registry.tracking_uri}")
    return seen


def _is_version(store: ObjectStore, digest: str) -> bool:
    """True for a pool's manifest, whose canonical form has this key first."""
    if not store.begins(digest, b'{"assistant":'):
        return False
    try:
        value = store.get_json(digest)
    except LciaError:  # damaged; the others speak
        return False
    return isinstance(value, dict) and value.get("kind") == "pool"
