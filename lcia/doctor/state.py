"""Checks of the state: database, accounts, log, leases, rounds, object store, and the base model of the champion."""

import os
import random
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from components.audit.verify import verify_database
from components.promotion import champion
from components.promotion.approvals import check_version
from components.storage import leases as lease_table
from components.storage import rounds as round_table
from components.storage.database import Database, SchemaUnknown
from components.storage.objects import ObjectStore
from components.storage.sqlite import sqlite_file
from lcia.doctor import accounts
from lcia.doctor.findings import Finding, Installation
from lcia.doctor.installation import steps_elsewhere
from lcia.instance import need_database

SAMPLE = 200
"""Objects that are read in full, drawn at random, beside all of the champion's."""


def check_database(subject: Installation) -> Iterator[Finding]:
    """Check that the database exists and its tables fit this release."""
    url = subject.settings.storage.database
    need_database(Database(url), subject.settings, ObjectStore(subject.settings.storage.objects))
    if is_missing(url):
        yield Finding("database", "warning", f"{url} does not exist yet", "the first verb that writes makes it")
        return
    db = Database(url)
    schema, head = db.revisions()
    if schema == head:
        yield Finding("database", "ok", f"{db.url}, schema {schema}")
    else:
        advice = "any other verb brings it up to date; back it up first"
        yield Finding("database", "warning", f"{db.url} has schema {schema}, expected {head}", advice)


def check_accounts(subject: Installation) -> Iterator[Finding]:
    """Check the accounts of the database."""
    if open_database(subject) is not None:
        yield from accounts.of_database(subject.settings)


def check_log(subject: Installation) -> Iterator[Finding]:
    """Verify the log, and that it explains the state."""
    db = open_database(subject)
    if db is None:
        return
    with db.read() as connection:
        verification = verify_database(connection)
    sentence = f"{verification.message}; {verification.state}" if verification.ok else verification.message
    advice = "" if verification.ok else "restore the database from a backup; compare with an exported log"
    yield Finding("log", "ok" if verification.ok else "problem", sentence, advice)


def check_leases(subject: Installation) -> Iterator[Finding]:
    """Check the leases: held, lost, or ahead of the clock."""
    db = open_database(subject)
    if db is None:
        return
    with db.read() as connection:
        standing = lease_table.standing(connection)
    for one in standing:
        if one.ahead:
            advice = "set the clock of the database's machine right; the next process that wants the lease gets it"
            yield Finding("leases", "warning", f"{one.words}: the clock was set back", advice)
        elif one.is_lost:
            yield Finding(
                "leases", "warning", f"{one.words}: it no longer runs", "nothing: `lcia work` takes over and goes on"
            )
        else:
            yield Finding("leases", "ok", one.words)
    if not standing:
        yield Finding("leases", "ok", "none is held: nobody is at work")


def check_rounds(subject: Installation) -> Iterator[Finding]:
    """Check the rounds of all processes for failures."""
    db = open_database(subject)
    if db is None:
        return
    with db.read() as connection:
        failing = round_table.failing(connection)
    advice = "mend what it names; it is tried again by itself, later each time"
    yield from (Finding("rounds", "warning", one.words, advice) for one in failing)


def check_store(subject: Installation) -> Iterator[Finding]:
    """Check that the store can be written, and read the champion's objects and a sample of all others."""
    url = subject.settings.storage.objects
    if url.startswith("file://") and not Path(url.removeprefix("file://")).exists():
        yield Finding("store", "warning", f"{url} does not exist yet", "the first verb that writes makes it")
        return
    store = ObjectStore(url)
    area = store.scratch(f"doctor-{os.getpid()}")
    area.write("probe", b"written by lcia doctor\n")
    readable = area.read("probe") == b"written by lcia doctor\n"
    area.clear()
    if not readable:
        yield Finding("store", "problem", f"{url} does not give back what was written", "look at the file system")
        return
    db = open_database(subject)
    whole = 0
    if db is not None:
        with db.read() as connection:
            now = champion.current(connection, subject.settings.assistant)
        whole = check_version(store, now.version) if now else 0  # raises if something is missing or altered
    names = [file.name for file in store.objects()]
    sample = random.sample(names, min(SAMPLE, len(names)))
    for name in sample:
        store.get(name)
    sentence = f"{url} is writable; the champion's {whole} objects and {len(sample)} of all {len(names)} are intact"
    yield Finding("store", "ok", sentence)


def check_model(subject: Installation) -> Iterator[Finding]:
    """Load the base model, and compare it with the one that the champion was made on."""
    if (cluster := steps_elsewhere(subject)) is not None:
        yield Finding("model", "ok", f"loaded by the steps alone, in {cluster.image}")
        return
    if find_spec("torch") is None:
        sentence = "torch is not installed, and steps run where the worker runs (no `cluster` in the settings)"
        yield Finding(
            "model", "problem", sentence, "run `lcia doctor` where the worker runs, in the image `lcia-train`"
        )
        return
    from components.model.base import is_available, load_base

    base, models = subject.settings.base_model, Path(subject.settings.storage.models)
    if not is_available(base, models):
        yield Finding("model", "ok", f"{base.name} is installed; the first run converts it once, about 20 seconds")
        return
    model = load_base(base, models)
    length = f"rows of up to {model.settings.longest} tokens (base_model.max_tokens is {base.max_tokens})"
    sentence = f"{base.name} loads on {model.device.type}, digest {model.digest[:12]}, {length}"
    db = open_database(subject)
    if db is not None:
        with db.read() as connection:
            now = champion.current(connection, subject.settings.assistant)
        made_on = ObjectStore(subject.settings.storage.objects).get_json(now.version)["base_model"] if now else None
        if made_on not in (None, model.digest):
            advice = "set base_model back, or let the new model learn every task again: `lcia rebase`"
            sentence = f"{sentence}, but the champion was made on {made_on[:12]}"
            yield Finding("model", "problem", sentence, advice)
            return
    yield Finding("model", "ok", sentence)


def open_database(subject: Installation) -> Database | None:
    """Database, if its tables fit this release; else None, and the check `database` reports why."""
    url = subject.settings.storage.database
    if is_missing(url):
        return None
    db = Database(url)
    try:
        schema, head = db.revisions()
    except SchemaUnknown:
        return None
    return db if schema == head else None


def is_missing(url: str) -> bool:
    """True for a SQLite database whose file does not exist."""
    file = sqlite_file(url)
    return file is not None and not file.exists()
