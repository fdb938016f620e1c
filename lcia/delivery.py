"""The fate of a decision in MLflow: told, served, or still on its way; part of every answer of those who decide."""

import time
from typing import Any

from components.promotion import champion
from components.promotion.champion import Champion
from components.promotion.outbox import Undelivered, undelivered
from components.promotion.registry_client import PATIENCE
from components.storage import leases
from lcia import moving
from lcia.workplace import Workplace

LOOK_SECONDS = 0.2


def settle(place: Workplace) -> None:
    """Tell MLflow what was decided, or wait for the process that does: with separate accounts it is another one.

    What became of it stands in the rows, see `standing`.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        place.tell_registry()
        with place.db.read() as connection:
            busy = leases.holder(connection, f"outbox:{place.assistant}") is not None
            left = undelivered(connection, place.assistant)
        untried = all(row.attempts == 0 for row in left)
        if not left or not (busy or untried) or time.monotonic() > deadline:
            return
        time.sleep(LOOK_SECONDS)


def served(place: Workplace, now: Champion | None) -> bool:
    """True if MLflow was last seen to serve the champion that was decided, from this state's own files."""
    return now is None or seen_served(place, now) == now.version


def seen_served(place: Workplace, now: Champion) -> str | None:
    """Digest that MLflow was last seen to serve; None where its records are gone, or name files of another place."""
    lost = moving.mlflow_moved(place) is not None or moving.mlflow_empty(place)
    return None if lost or moving.links(place.home, place.settings) else now.served


def standing(place: Workplace, version: str | None = None) -> dict[str, Any]:
    """`served`: whether MLflow serves the champion that was decided; `registry_untold`: what it was not told yet.

    With `version` only what is about that version; `exit_code` is 1 where something of it is left.
    """
    with place.db.read() as connection:
        now = champion.current(connection, place.assistant)
        waiting = undelivered(connection, place.assistant)
    untold = [line(row) for row in waiting if version in (None, row.digest)]
    serves = served(place, now)
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
