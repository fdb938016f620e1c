"""`lcia doctor`: whether this installation and its state are as they should be, and what to do where not.

Each check gives lines of ok, warning or problem. Nothing is made or mended; a check that can't be made is a problem.
"""

import os
import random
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from components import libraries
from components.audit.decisions import ChampionUnexplained, need_decision
from components.audit.keys import PRIVATE_NAME
from components.audit.log import LogDamaged
from components.audit.verify import verify_database
from components.errors import LciaError
from components.promotion import candidates, champion
from components.promotion.approvals import check_version
from components.promotion.statements import newest
from components.quality.fingerprints import KEY_NAME
from components.registry.outbox import Undelivered, backlog
from components.registry.outbox_rows import SERVING
from components.registry.registry import Registry
from components.registry.replay import replay
from components.storage import leases, rounds
from components.storage.database import Database, SchemaUnknown
from components.storage.objects import ObjectStore
from components.storage.sqlite import sqlite_file
from infra import zenml_places
from lcia import failures
from lcia.doctor import accounts, outside
from lcia.doctor.findings import Finding, Patient
from lcia.instance import need_database, user_name
from lcia.operations import delivery, relocation

__all__ = ["Finding", "Patient", "examine", "report", "words"]

KEY_LIBRARIES = (
    "accelerate", "alembic", "cryptography", "evidently", "fsspec", "great-expectations", "mlflow", "numpy", "peft",
    "pydantic", "safetensors", "scikit-learn", "sqlalchemy", "tokenizers", "torch", "transformers", "typer", "zenml",
)  # fmt: skip
"""Libraries whose versions decide what is computed, stored or understood."""
PYTHON = (3, 11)
LOW_DISK, NO_DISK = 5.0, 1.0
"""GiB free below which there is a warning, and a problem."""
SAMPLE = 200
"""Objects that are read in full, drawn at random, beside all of the champion's."""


def examine(patient: Patient, *, quick: bool = False) -> list[Finding]:
    """Every check in order; `quick` leaves out loading the model and asking MLflow and ZenML."""
    checks: list[tuple[str, Callable[[Patient], Iterator[Finding]]]] = [
        ("python", _python),
        ("libraries", _libraries),
        ("settings", _settings),
        ("disk", _disk),
        ("permissions", _permissions),
        ("database", _database),
        ("accounts", _accounts),
        ("log", _log),
        ("leases", _leases),
        ("rounds", _rounds),
        ("store", _store),
        ("parser", outside.parser),
        ("inbox", outside.inboxes),
        *([] if quick else [("model", _model), ("mlflow", _mlflow), ("zenml", _zenml)]),
    ]
    found: list[Finding] = []
    for name, check in checks:
        try:
            found += check(patient)
        except LciaError as error:
            found.append(Finding(name, "problem", str(error), "mend what it names, then run `lcia doctor` again"))
        except Exception as error:  # noqa: BLE001 - the doctor says what is ill, whatever it is
            advice = "mend what it names, then run `lcia doctor` again; report it if it stays"
            found.append(Finding(name, "problem", failures.explain(error), advice))
    return found


def report(found: list[Finding]) -> dict[str, Any]:
    """Plain data; `ok` is false where there is a problem."""
    counts = {verdict: sum(one.verdict == verdict for one in found) for verdict in ("ok", "warning", "problem")}
    return {"ok": not counts["problem"], "counts": counts, "findings": [asdict(one) for one in found]}


def words(value: dict[str, Any]) -> str:
    """A line for each check, with what to do below it."""
    lines = []
    for one in value["findings"]:
        lines.append(f"{one['verdict']:<8} {one['check']:<12} {one['words']}")
        if one["advice"]:
            lines.append(f"{'':<21} -> {one['advice']}")
    counts = value["counts"]
    return "\n".join([*lines, f"{counts['ok']} ok, {counts['warning']} warnings, {counts['problem']} problems"])


# -- the installation -------------------------------------------------------------------------------


def _python(patient: Patient) -> Iterator[Finding]:  # noqa: ARG001
    seen = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == PYTHON:
        yield Finding("python", "ok", f"Python {seen}")
    else:
        expected = ".".join(map(str, PYTHON))
        yield Finding("python", "problem", f"Python {seen}, expected {expected}", f"install {expected}, `make setup`")


def _torch_elsewhere(patient: Patient) -> bool:
    """Whether this installation has no torch and needs none, for its steps run on a cluster."""
    return patient.settings.cluster is not None and find_spec("torch") is None


def _libraries(patient: Patient) -> Iterator[Finding]:
    expected = libraries.pins()
    if not expected:
        told = f"{libraries.LOCK} is not there: versions can't be compared"
        yield Finding("libraries", "warning", told, "use the checkout")
        return
    differing = []
    needed = [name for name in KEY_LIBRARIES if not (name in libraries.WITH_TORCH and _torch_elsewhere(patient))]
    for name in needed:
        try:
            seen = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding("libraries", "problem", f"{name} is not installed", "`make setup` installs requirements.lock")
            continue
        wanted = expected.get(libraries.plain(name))
        if wanted is not None and libraries.public(seen) != libraries.public(wanted):
            differing.append(f"{name} {seen} (locked {wanted})")
    if differing:
        yield Finding(
            "libraries",
            "warning",
            f"other versions than tested: {', '.join(differing)}",
            "`make setup` installs requirements.lock; versions made under other libraries are predicted again",
        )
    else:
        yield Finding("libraries", "ok", f"{len(needed)} key libraries as in requirements.lock")


def _settings(patient: Patient) -> Iterator[Finding]:
    told = f"{patient.file or 'built-in defaults'}; assistant {patient.settings.assistant!r}, state in {patient.home}"
    refused = relocation.links(patient.home, patient.settings)
    for sentence in refused:
        yield Finding("settings", "problem", sentence, "do what it says; `withdraw`, `retention` and `sync` refuse it")
    if refused:
        return
    if patient.home.is_dir():
        yield Finding("settings", "ok", told)
    else:
        yield Finding(
            "settings", "warning", f"{told}, which does not exist yet", "`lcia submit` or `lcia demo` makes it"
        )


# -- the machine ------------------------------------------------------------------------------------


def _disk(patient: Patient) -> Iterator[Finding]:
    folder = next(path for path in (patient.home, *patient.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free / 2**30
    told = f"{free:.1f} GiB free below {folder}"
    advice = "free space; `lcia retention` says what need not be kept any more"
    if free < NO_DISK:
        yield Finding("disk", "problem", told, advice)
    else:
        yield Finding("disk", "warning" if free < LOW_DISK else "ok", told, advice if free < LOW_DISK else "")
    if patient.home.is_dir() and not os.access(patient.home, os.W_OK):
        who = user_name(patient.home.stat().st_uid)
        yield Finding("disk", "problem", f"{patient.home} can't be written", f"run lcia as {who}, its owner")


def _permissions(patient: Patient) -> Iterator[Finding]:
    keys = patient.home / "keys"
    found = [path for path in (keys / PRIVATE_NAME, keys / KEY_NAME) if path.exists()]
    for path in found:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield Finding("permissions", "problem", f"{path} has mode {mode:04o}, expected 0600", f"chmod 600 {path}")
    if len(found) == 2 and patient.settings.storage.promoter:
        told = f"{keys} holds the key that signs the log and that of the leak checks"
        advice = (
            "leave the first with the service and the second with the worker (docs/kubernetes.md, Keys and secrets)"
        )
        yield Finding("permissions", "warning", told, advice)
    open_folder = keys.is_dir() and stat.S_IMODE(keys.stat().st_mode) & 0o022
    if open_folder:
        yield Finding("permissions", "problem", f"others may write to {keys}", f"chmod go-w {keys}")
    elif all(not stat.S_IMODE(path.stat().st_mode) & 0o077 for path in found):
        told = f"{len(found)} private keys, readable by their owner only" if found else "no keys yet"
        yield Finding("permissions", "ok", told)


# -- the truth --------------------------------------------------------------------------------------


def _sqlite_missing(url: str) -> bool:
    file = sqlite_file(url)
    return file is not None and not file.exists()


def _database(patient: Patient) -> Iterator[Finding]:
    url = patient.settings.storage.database
    need_database(Database(url), patient.settings, ObjectStore(patient.settings.storage.objects))
    if _sqlite_missing(url):
        yield Finding("database", "warning", f"{url} does not exist yet", "the first verb that writes makes it")
        return
    db = Database(url)
    seen, head = db.revisions()
    if seen == head:
        yield Finding("database", "ok", f"{db.url}, schema {seen}")
    else:
        advice = "any other verb brings it up to date; back it up first"
        yield Finding("database", "warning", f"{db.url} has schema {seen}, expected {head}", advice)


def _accounts(patient: Patient) -> Iterator[Finding]:
    if _opened(patient) is not None:
        yield from accounts.of_database(patient.settings)


def _log(patient: Patient) -> Iterator[Finding]:
    db = _opened(patient)
    if db is None:
        return
    with db.read() as connection:
        found = verify_database(connection)
    told = f"{found.message}; {found.state}" if found.ok else found.message
    advice = "" if found.ok else "restore the database from a backup; compare with an exported log"
    yield Finding("log", "ok" if found.ok else "problem", told, advice)


def _leases(patient: Patient) -> Iterator[Finding]:
    db = _opened(patient)
    if db is None:
        return
    with db.read() as connection:
        held = leases.standing(connection)
    for one in held:
        if one.ahead:
            advice = "set the clock of the database's machine right; the next process that wants the lease gets it"
            yield Finding("leases", "warning", f"{one.words}: the clock was set back", advice)
        elif one.is_lost:
            yield Finding(
                "leases", "warning", f"{one.words}: it runs no more", "nothing: `lcia work` takes over and goes on"
            )
        else:
            yield Finding("leases", "ok", one.words)
    if not held:
        yield Finding("leases", "ok", "none is held: nobody is at work")


def _rounds(patient: Patient) -> Iterator[Finding]:
    db = _opened(patient)
    if db is None:
        return
    with db.read() as connection:
        failing = rounds.failing(connection)
    advice = "mend what it names; it is tried again by itself, later each time"
    yield from (Finding("rounds", "warning", one.words, advice) for one in failing)


def _store(patient: Patient) -> Iterator[Finding]:
    url = patient.settings.storage.objects
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
    db = _opened(patient)
    whole = 0
    if db is not None:
        with db.read() as connection:
            now = champion.current(connection, patient.settings.assistant)
        whole = check_version(store, now.version) if now else 0  # raises where something is missing or altered
    names = [file.name for file in store.objects()]
    drawn = random.sample(names, min(SAMPLE, len(names)))
    for name in drawn:
        store.get(name)
    words_ = f"{url} is writable; the champion's {whole} objects and {len(drawn)} of all {len(names)} are intact"
    yield Finding("store", "ok", words_)


def _opened(patient: Patient) -> Database | None:
    """The database where it has tables; None says the check `database` has told already."""
    url = patient.settings.storage.database
    if _sqlite_missing(url):
        return None
    db = Database(url)
    try:
        seen, head = db.revisions()
    except SchemaUnknown:
        return None
    return db if seen == head else None


# -- what is loaded and asked -----------------------------------------------------------------------


def _model(patient: Patient) -> Iterator[Finding]:
    if _torch_elsewhere(patient):
        yield Finding("model", "ok", f"loaded by the steps alone, in {patient.settings.cluster.image}")
        return
    if find_spec("torch") is None:
        told = "torch is not installed, and steps run where the worker runs (no `cluster` in the settings)"
        yield Finding("model", "problem", told, "ask `lcia doctor` where the worker is, in the image `lcia-train`")
        return
    from components.model.base import is_available, load_base

    base, models = patient.settings.base_model, Path(patient.settings.storage.models)
    if not is_available(base, models):
        yield Finding("model", "ok", f"{base.name} is installed; the first run converts it once, about 20 seconds")
        return
    loaded = load_base(base, models)
    told = f"{base.name} loads on {loaded.device.type}, digest {loaded.digest[:12]}"
    db = _opened(patient)
    if db is not None:
        with db.read() as connection:
            now = champion.current(connection, patient.settings.assistant)
        made_on = ObjectStore(patient.settings.storage.objects).get_json(now.version)["base_model"] if now else None
        if made_on not in (None, loaded.digest):
            advice = "set base_model back, or let the new model learn every task again: `lcia rebase`"
            told = f"{told}, but the champion was made on {made_on[:12]}"
            yield Finding("model", "problem", told, advice)
            return
    yield Finding("model", "ok", told)


def _mlflow(patient: Patient) -> Iterator[Finding]:
    told = patient.settings.registry
    db, name, missing = _opened(patient), patient.settings.assistant, _sqlite_missing(told.tracking_uri)
    if db is None or missing:
        yield _no_mlflow(patient, db)
        return
    registry = Registry(told.tracking_uri, told.artifacts, told.experiment, name, patient.home)
    served = registry.champion()
    with db.read() as connection:
        try:
            need_decision(connection, name)
        except (ChampionUnexplained, LogDamaged) as error:
            yield Finding("mlflow", "problem", f"not compared with the champion: {error}", "see the check `log`")
            return
        now = champion.current(connection, name)
        waiting = backlog(connection, name)
        number = candidates.get(connection, name, now.version).number if now else None
        store = ObjectStore(patient.settings.storage.objects)
        shown = replay(connection, store, name, newest, only=now.version).versions.get(now.version) if now else None
    if (old := registry.moved_from()) is not None:
        what = f"its records name files at {old}, registry.artifacts is {told.artifacts}: the state was moved or copied"
        yield Finding("mlflow", "problem", what, "`lcia sync` corrects the records")
        return
    yield from accounts.of_mlflow(patient.settings)
    refused = [row for row in waiting if row.parked_at is not None]
    for row in refused:
        advice = "`lcia sync` publishes again what is missing and tries it again"
        yield Finding("mlflow", "problem", delivery.line(row), advice)
    if waiting and not refused:
        why = next((f": {row.error}" for row in waiting if row.error), "")
        yield Finding("mlflow", "warning", f"{len(waiting)} changes were not told yet{why}", "`lcia sync` tells them")
    elif served != (now.version if now else None):
        yield _alias(served, number, [row for row in waiting if row.kind in SERVING])
    elif not refused:
        if now and shown:
            registry.need_loadable(now.version, shown)
        yield Finding(
            "mlflow", "ok", f"reachable and in step; serves {f'version {number}' if number else 'nothing yet'}"
        )


def _no_mlflow(patient: Patient, db: Database | None) -> Finding:
    """MLflow has no database: none yet, or none any more."""
    uri = patient.settings.registry.tracking_uri
    if db is not None:
        store, name = ObjectStore(patient.settings.storage.objects), patient.settings.assistant
        with db.read() as connection:
            shown_before = bool(replay(connection, store, name, None, "").versions)
        if shown_before:
            what = f"{uri} is missing: MLflow has lost every version, and serves no champion"
            return Finding("mlflow", "problem", what, "`lcia sync` makes it again, with all that it was told")
    return Finding("mlflow", "ok", f"{uri} is made with the first candidate")


def _alias(served: str | None, number: int | None, untold: list[Undelivered]) -> Finding:
    """Another version under the alias than was decided: decisions that MLflow was not told, or somebody moved it."""
    champion_ = "there is no champion" if number is None else f"the champion is version {number}"
    what = f"its alias serves {(served or 'nothing')[:12]}, {champion_}"
    if untold:
        return Finding("mlflow", "problem", f"{what}; {delivery.line(untold[-1])}", "`lcia sync` tells it again")
    if served is None:
        what = f"{what}: its database is empty, or somebody took the alias away"
        return Finding("mlflow", "problem", what, "`lcia sync` publishes again what is missing, and sets the alias")
    return Finding("mlflow", "problem", what, "somebody else moved it: `lcia sync` moves it back")


def _zenml(patient: Patient) -> Iterator[Finding]:
    if not (patient.home / "zenml").is_dir():
        yield Finding("zenml", "ok", "its folder is made with the first run")
        return
    if (old := zenml_places.moved_from(patient.home)) is not None:
        what = f"its records name files below {old}, the state is in {patient.home}: it was moved or copied"
        yield Finding("zenml", "problem", what, "`lcia sync` corrects the records")
        return
    from zenml.client import Client

    client = Client()
    yield Finding("zenml", "ok", f"usable as {client.active_user.name}, stack {client.active_stack_model.name}")
