"""Reading everything that a decision rests on: each object is checked against its name, however deep it lies.

Not entered: ancestors, whose own decisions rested on their own evidence, and rows of predictions, whose texts refer to
nothing. What is named and not stored is passed over: it is no object, or retention erased it.
"""

from collections.abc import Iterable

from components.storage.objects import Json, NotCanonical, ObjectStore, canonical, parse_json
from components.storage.reach import named

_NOT_ENTERED = frozenset({"parent", "parents", "rows"})


def read_below(store: ObjectStore, digests: Iterable[str]) -> int:
    """Read objects and all they lead to; returns how many there are.

    Raises:
        ObjectMissing: one of `digests` is not stored.
        ObjectCorrupt: a byte of one of the objects was changed.
    """
    waiting = [*digests]
    seen = set(waiting)
    count = 0
    while waiting:
        content = store.get(waiting.pop())
        count += 1
        for name in _names(content) - seen:
            seen.add(name)
            if store.exists(name):
                waiting.append(name)
    return count


def _names(content: bytes) -> set[str]:
    """Digests that a record names; those of anything else are none."""
    if not content.startswith(b"{") or content.endswith(b"\n"):
        return set()
    try:
        value: Json = parse_json(content)
    except NotCanonical:
        return set()
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return set()
    return named(canonical({name: part for name, part in value.items() if name not in _NOT_ENTERED}))
