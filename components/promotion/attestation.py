"""What follows a promotion: its signed statement, and signed heads at places outside the database.

Both are owed by what the history and the log say, so they may be made later, by any process that has the key, and are
made up for after a crash.
"""

from collections.abc import Callable, Mapping, Sequence

from components.audit import heads, keyring
from components.audit.heads import Keep
from components.audit.keys import SigningKey
from components.errors import LciaError
from components.promotion import champion
from components.promotion.outbox import Delivery
from components.promotion.statements import entries_of, owed, sign_owed
from components.storage.database import AccountRefused, Database
from components.storage.objects import ObjectStore


def attest(
    db: Database,
    store: ObjectStore,
    assistant: str,
    key: Callable[[], SigningKey],
    places: Sequence[str],
    keepers: Mapping[str, Keep],
) -> list[Delivery]:
    """Sign what is owed and bring heads to their places; failures are returned, never raised.

    `key` is asked for only where something is to be signed. A process whose database account is for other work
    does nothing.
    """
    try:
        with db.read() as connection:
            unsigned = owed(connection, assistant, keyring.newest(connection))
            last = champion.lineage(connection, assistant)[-1:]
            length = max((entry.index + 1 for entry in entries_of(connection, last).values()), default=0)
            headless = heads.missing(connection, places, length) if length else []
            undelivered = heads.waiting(connection, places)
        if unsigned:
            sign_owed(db, store, key(), assistant)
        if headless:
            heads.enqueue(db, key(), headless)
        kept = heads.deliver(db, places, keepers) if headless or undelivered else []
    except AccountRefused:
        return []
    except LciaError as error:
        return [Delivery(0, "statement", "", ok=False, message=f"not signed: {error}")]
    return [Delivery(0, "head", "", one.ok, f"{one.place}: {one.message}") for one in kept]
