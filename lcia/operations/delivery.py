"""The fate of a decision in MLflow: told, served, or still on its way; part of every answer of those who decide."""

import time
from typing import Any

from components.promotion import champion
from components.promotion.champion import Champion
from components.registry.client import PATIENCE
from components.registry.outbox import Undelivered, backlog
from components.storage import leases
from lcia.instance import Instance
from lcia.operations import relocation

LOOK_SECONDS = 0.2


def settle(instance: Instance) -> None:
    """Tell MLflow what was decided, or wait for the process that does: with separate accounts it is another one.

    What became of it stands in the rows, see `standing`.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        instance.tell_registry()
        with instance.db.read() as connection:
            busy = leases.holder(connection, f"outbox:{instance.assistant}") is not None
            left = backlog(connection, instance.assistant)
        untried = all(row.attempts == 0 for row in left)
        if not left or not (busy or untried) or time.monotonic() > deadline:
            return
        time.sleep(LOOK_SECONDS)


def served(instance: Instance, now: Champion | None) -> bool:
    """True if MLflow was last seen to serve the champion that was decided, from this state's own files."""
    return now is None or seen_served(instance, now) == now.version


def seen_served(instance: Instance, now: Champion) -> str | None:
    """Digest that MLflow was last seen to serve; None where its records are gone, or name files of another place."""
    lost = relocation.mlflow_moved(instance) is not None or relocation.mlflow_empty(instance)
    return None if lost or relocation.links(instance.home, instance.settings) else now.served


def standing(instance: Instance, version: str | None = None) -> dict[str, Any]:
    """`served`: whether MLflow serves the champion that was decided; `registry_untold`: what it was not told yet.

    With `version` only what is about that version; `exit_code` is 1 where something of it is left.
    """
    with instance.db.read() as connection:
        now = champion.current(connection, instance.assistant)
        waiting = backlog(connection, instance.assistant)
    untold = [line(row) for row in waiting if version in (None, row.digest)]
    serves = served(instance, now)
    concerned = version is None or (now is not None and now.version == version)
    return {
        "served": serves,
        "registry_untold": untold,
        "exit_code": 1 if untold or (concerned and not serves) else 0,
    }


def line(row: Undelivered) -> str:
    """A row that MLflow was not told, for people."""
    if row.parked_at is not None and row.digest:
        return f"{row.what}: MLflow refused it ({row.attempts} attempts): {row.error}"
    return f"{row.what}: {row.error or 'not tried yet'}"
