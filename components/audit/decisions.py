"""Decisions about the champion, by the log: only a version that was decided is served, built upon or rolled back from.

Somebody who can write to a table can name another champion there. The log says which one was decided: each decision is
tied to its entry, whose bytes, position and link to the log's root are checked in a time that hardly grows with the
log.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from components.audit import log
from components.audit.log import Entry, LogDamaged
from components.audit.merkle import check_inclusion, inclusion_spans
from components.errors import LciaError
from components.storage.tables import champion, promotions

DECISIONS = {"champion.promoted": "promotion", "champion.rolled_back": "rollback"}
"""Action that moves the champion -> kind of the decision."""
DISOWNED = "log.disowned"
"""Action by which the owner of the tables states that another entry was never decided."""
ADVICE = "`lcia audit verify` says what was changed; restore the database from a backup"


class ChampionUnexplained(LciaError):
    """The database names a champion that the log does not explain: it was changed outside lcia."""


def need_decision(connection: Connection, assistant: str) -> Entry | None:
    """The log entry of the decision that made the present champion; None if there is neither.

    Raises:
        ChampionUnexplained, LogDamaged: the log says something else, or is not whole around that entry.
    """
    query = select(champion).where(champion.c.name == assistant)
    row = connection.execute(query).mappings().one_or_none()
    newest = newest_decision(connection, assistant)
    if row is None:
        if newest is not None:
            raise ChampionUnexplained(
                f"the database has no champion, and the log decided on {newest.subject[:12]} (entry {newest.index}); "
                f"{ADVICE}"
            )
        return None
    mine = (promotions.c.name == assistant) & (promotions.c.epoch == row["epoch"])
    decision = connection.execute(select(promotions).where(mine)).mappings().one_or_none()
    what = f"the champion {row['version'][:12]} of epoch {row['epoch']}"
    if decision is None or decision["entry"] is None:
        raise ChampionUnexplained(f"the log has no entry for {what}: nobody decided on it. {ADVICE}")
    entry = log.at(connection, decision["entry"])
    if decision["version"] != row["version"] or entry is None or not tells_of(entry, decision):
        instead = f"it tells of {entry.subject[:12]}" if entry is not None else "which is missing"
        raise ChampionUnexplained(
            f"{what} is not what entry {decision['entry']} of the log decided ({instead}). {ADVICE}"
        )
    if newest is not None and newest.index != entry.index:
        raise ChampionUnexplained(
            f"{what} was decided by entry {entry.index}, and entry {newest.index} of the log decided later on "
            f"{newest.subject[:12]}. {ADVICE}; where that entry was forged, the owner of the tables says so with "
            f"`lcia audit disown {newest.index}`"
        )
    _need_inside(connection, entry)
    return entry


def newest_decision(connection: Connection, assistant: str) -> Entry | None:
    """The newest entry that moves an assistant's champion and was not disowned."""
    disowned_hashes = disownments(connection)
    for entry in log.newest(connection, list(DECISIONS)):
        if entry.details.get("assistant") == assistant and disowned_hashes.get(entry.index) != entry.hash:
            return entry
    return None


def disownments(connection: Connection) -> dict[int, str]:
    """Index -> hash of every entry that the owner of the tables disowned."""
    return {one.details["entry"]: one.details["hash"] for one in log.newest(connection, [DISOWNED])}


def tells_of(entry: Entry, decision: Mapping[str, Any] | RowMapping) -> bool:
    """True if an entry is that of a row of history. Marks are not compared: a withdrawal adds some to the row later."""
    details = entry.details
    entry_facts = (entry.subject, details.get("assistant"), details.get("epoch"), details.get("previous"))
    entry_deed = (DECISIONS.get(entry.action), details.get("evidence"), details.get("reason"), entry.actor.assured)
    row_facts = (decision["version"], decision["name"], decision["epoch"], decision["previous"])
    row_deed = (decision["kind"], decision["evidence"], decision["reason"], decision["assured"])
    return entry_facts == row_facts and entry_deed == row_deed and entry.actor.name == decision["by"]


def _need_inside(connection: Connection, entry: Entry) -> None:
    """Check that the entry is a leaf of the tree whose root the log has now."""
    head = log.head(connection)
    path = log.span_hashes(connection, inclusion_spans(entry.index, head.entries))
    if not check_inclusion(bytes.fromhex(entry.hash), entry.index, head.entries, path, bytes.fromhex(head.root)):
        raise LogDamaged(f"entry {entry.index} of the log, or one after it, was altered; {ADVICE}")
