"""The fate of a decision in MLflow: told, served, or still on its way; part of every answer of those who decide."""

import time
from typing import Any

from components.promotion import champion
from components.promotion.champion import Champion
from components.registry.client import PATIENCE
from components.registry.outbox import Undelivered, backlog
from components.storage import leases
from lcia.instance import Instance
from lcia.operations import relocation, trials

LOOK_SECONDS = 0.2


def settle(instance: Instance) -> None:
    """Tell MLflow of decisions, or wait for the process that does: with separate accounts it is another one.

    The rows hold the outcome, see `standing`. Trials that the decision ended get their records.
    """
    trials.settle(instance)
    deadline = time.monotonic() + PATIENCE
    while True:
        instance.tell_registry()
        with instance.db.read() as connection:
            busy = leases.holder(connection, f"outbox:{instance.assistant}") is not None
            rows = backlog(connection, instance.assistant)
        is_new = all(row.attempts == 0 for row in rows)
        if not rows or not (busy or is_new) or time.monotonic() > deadline:
            return
        time.sleep(LOOK_SECONDS)


def is_served(instance: Instance, now: Champion | None) -> bool:
    """True if MLflow was last seen to serve the champion that was decided, from this state's own files."""
    return now is None or seen_served(instance, now) == now.version


def seen_served(instance: Instance, now: Champion) -> str | None:
    """Digest that MLflow was last seen to serve; None where its records are gone, or name files of another place."""
    is_elsewhere = relocation.mlflow_moved(instance) is not None or relocation.mlflow_empty(instance)
    return None if is_elsewhere or relocation.links(instance.home, instance.settings) else now.served


def standing(instance: Instance, version: str | None = None) -> dict[str, Any]:
    """`served`: MLflow serves the champion that was decided; `registry_untold`: changes that have not reached it yet.

    With `version` only what is about that version; `exit_code` is 1 where something of it is left.
    """
    with instance.db.read() as connection:
        now = champion.current(connection, instance.assistant)
        waiting = backlog(connection, instance.assistant)
    untold = [line(row) for row in waiting if version in (None, row.digest)]
    serves = is_served(instance, now)
    matters = version is None or (now is not None and now.version == version)
    return {
        "served": serves,
        "registry_untold": untold,
        "exit_code": 1 if untold or (matters and not serves) else 0,
    }


def line(row: Undelivered) -> str:
    """A row that MLflow was not told, for people."""
    if row.parked_at is not None and row.digest:
        return f"{row.what}: MLflow refused it ({row.attempts} attempts): {row.error}"
    return f"{row.what}: {row.error or 'not tried yet'}"
