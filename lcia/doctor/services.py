"""Checks of MLflow and ZenML against the state."""

from collections.abc import Iterator

from components.audit.decisions import ChampionUnexplained, need_decision
from components.audit.log import LogDamaged
from components.promotion import candidates, champion
from components.promotion.statements import newest
from components.registry.outbox import Undelivered, backlog
from components.registry.outbox_rows import SERVING
from components.registry.registry import Registry
from components.registry.replay import replay
from components.storage.database import Database
from components.storage.objects import ObjectStore
from infra import zenml_places
from lcia.doctor import accounts
from lcia.doctor.findings import Finding, Installation
from lcia.doctor.state import is_missing, open_database
from lcia.operations import delivery


def check_mlflow(subject: Installation) -> Iterator[Finding]:
    """Compare MLflow with what was decided: its alias, its versions, its paths, its accounts."""
    section = subject.settings.registry
    db, name, missing = open_database(subject), subject.settings.assistant, is_missing(section.tracking_uri)
    if db is None or missing:
        yield _no_mlflow(subject, db)
        return
    registry = Registry(section.tracking_uri, section.artifacts, section.experiment, name, subject.home)
    alias = registry.champion()
    with db.read() as connection:
        try:
            need_decision(connection, name)
        except (ChampionUnexplained, LogDamaged) as error:
            yield Finding("mlflow", "problem", f"not compared with the champion: {error}", "see the check `log`")
            return
        now = champion.current(connection, name)
        waiting = backlog(connection, name)
        number = candidates.get(connection, name, now.version).number if now else None
        store = ObjectStore(subject.settings.storage.objects)
        records = replay(connection, store, name, newest, only=now.version).versions.get(now.version) if now else None
    if (old := registry.moved_from()) is not None:
        what = (
            f"its records name files at {old}, registry.artifacts is {section.artifacts}: the state was moved or copied"
        )
        yield Finding("mlflow", "problem", what, "`lcia sync` corrects the records")
        return
    yield from accounts.of_mlflow(subject.settings)
    refusals = [row for row in waiting if row.parked_at is not None]
    for row in refusals:
        advice = "`lcia sync` publishes again what is missing and tries it again"
        yield Finding("mlflow", "problem", delivery.line(row), advice)
    if waiting and not refusals:
        why = next((f": {row.error}" for row in waiting if row.error), "")
        yield Finding("mlflow", "warning", f"{len(waiting)} changes were not sent yet{why}", "`lcia sync` sends them")
    elif alias != (now.version if now else None):
        yield _alias(alias, number, [row for row in waiting if row.kind in SERVING])
    elif not refusals:
        if now and records:
            registry.need_loadable(now.version, records)
        yield Finding(
            "mlflow", "ok", f"reachable and in step; serves {f'version {number}' if number else 'nothing yet'}"
        )


def _no_mlflow(subject: Installation, db: Database | None) -> Finding:
    """Finding about an MLflow without a database: it has none yet, or lost it."""
    uri = subject.settings.registry.tracking_uri
    if db is not None:
        store, name = ObjectStore(subject.settings.storage.objects), subject.settings.assistant
        with db.read() as connection:
            shown_before = bool(replay(connection, store, name, None, "").versions)
        if shown_before:
            what = f"{uri} is missing: MLflow has lost every version, and serves no champion"
            return Finding("mlflow", "problem", what, "`lcia sync` rebuilds it")
    return Finding("mlflow", "ok", f"{uri} is made with the first candidate")


def _alias(alias: str | None, number: int | None, untold: list[Undelivered]) -> Finding:
    """Finding about an alias on another version than decided: MLflow was not told yet, or somebody moved it."""
    champion_ = "there is no champion" if number is None else f"the champion is version {number}"
    what = f"its alias serves {(alias or 'nothing')[:12]}, {champion_}"
    if untold:
        return Finding("mlflow", "problem", f"{what}; {delivery.line(untold[-1])}", "`lcia sync` sends it again")
    if alias is None:
        what = f"{what}: its database is empty, or somebody took the alias away"
        return Finding("mlflow", "problem", what, "`lcia sync` publishes again what is missing, and sets the alias")
    return Finding("mlflow", "problem", what, "somebody else moved it: `lcia sync` moves it back")


def check_zenml(subject: Installation) -> Iterator[Finding]:
    """Check that ZenML can be used and its records name files of this state."""
    if not (subject.home / "zenml").is_dir():
        yield Finding("zenml", "ok", "its folder is made with the first run")
        return
    if (old := zenml_places.moved_from(subject.home)) is not None:
        what = f"its records name files below {old}, the state is in {subject.home}: it was moved or copied"
        yield Finding("zenml", "problem", what, "`lcia sync` corrects the records")
        return
    from zenml.client import Client

    client = Client()
    yield Finding("zenml", "ok", f"usable as {client.active_user.name}, stack {client.active_stack_model.name}")
