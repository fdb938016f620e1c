"""An attack: somebody who holds one process, account or role tries to get what is not theirs."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from benchmarks.attacks.installation import Installation
from components.errors import LciaError


class GotThrough(Exception):
    """An attack reached its end; the words say what it got."""


@dataclass(frozen=True)
class Attack:
    """One attack, to be run against an installation that stands."""

    name: str
    kind: str
    """Target of the attack: log, state, keys, cluster, bytes, budgets, policy, sites, forward, admins, inbox, ..."""
    by: str
    """Means of the attacker."""
    words: str
    """Action of the attacker."""
    run: Callable[[Installation], None]
    """Raises GotThrough where it is not held; any other exception means that the attack itself is broken."""


ATTACKS: list[Attack] = []
"""In the order they are run: later ones rest on what earlier ones leave."""


def attack(kind: str, by: str) -> Callable[[Callable[[Installation], None]], Callable[[Installation], None]]:
    """Add a function to the attacks; its docstring says what the attacker does."""

    def add(run: Callable[[Installation], None]) -> Callable[[Installation], None]:
        ATTACKS.append(Attack(run.__name__, kind, by, (inspect.getdoc(run) or "").partition("\n")[0], run))
        return run

    return add


def held(condition: object, words: str) -> None:
    """Go on while the defence holds.

    Raises:
        GotThrough: `condition` is not true.
    """
    if not condition:
        raise GotThrough(words)


def refused(deed: Callable[[], object], words: str) -> None:
    """Go on where a deed is refused.

    Raises:
        GotThrough: it was not.
    """
    try:
        deed()
    except (LciaError, DBAPIError, OSError):
        return
    raise GotThrough(words)
