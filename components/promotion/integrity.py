"""Integrity of evidence: read everything a decision rests on, at any depth, and check each object against its digest.

Every object that is named has to be there; only one that was erased on purpose, and left a note, may be absent. Not
followed: ancestors and versions that were carried over, which have evidence of their own, and rows of predictions,
whose texts refer to nothing. Some digests name no object: those of the base model, of the sentence model, of the
numerics, of keys.
"""

from collections.abc import Iterable

from components.storage.objects import Json, NotCanonical, ObjectMissing, ObjectStore, canonical, parse_json
from components.storage.reach import digests_in, images

_NOT_ENTERED = frozenset({"parent", "parents", "rows", "origin"})
_NO_OBJECTS = frozenset(
    {
        "base_model", "base", "encoder", "numerics", "numerics_digest", "contract", "key", "labels", "rows", "row",
        "id", "people", "instructions", "wordings",
    }
)  # fmt: skip
"""Fields whose digests name no stored object: models, numerics, keys, rows of a task, and people's names and words."""


def read_below(store: ObjectStore, digests: Iterable[str]) -> int:
    """Read objects and all they lead to; returns their number.

    Raises:
        ObjectMissing: one of them is not stored, and was not erased on purpose; one of `digests` may not be erased.
        ObjectCorrupt: a byte of one of the objects was changed.
    """
    waiting = [*digests]
    names = set(waiting)
    count = 0
    while waiting:
        content = store.get(waiting.pop())
        count += 1
        for name in _names(content) - names:
            names.add(name)
            if store.exists(name):
                waiting.append(name)
            elif store.why_erased(name) is None:
                raise ObjectMissing(
                    f"object {name} is not in {store.url} and was not erased by retention or a withdrawal; restore it "
                    "from a backup or run again what made it"
                )
    return count


def _names(content: bytes) -> set[str]:
    """Digests of objects that a record or the rows of a task name; none for any other content."""
    if not content.startswith(b"{") or content.endswith(b"\n"):
        return set(images(content))
    try:
        value: Json = parse_json(content)
    except NotCanonical:
        return set()
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return set()
    return digests_in(canonical(_objects({name: part for name, part in value.items() if name not in _NOT_ENTERED})))


def _objects(value: Json) -> Json:
    """A value without the fields that name no object, at any depth."""
    if isinstance(value, dict):
        return {name: _objects(part) for name, part in value.items() if name not in _NO_OBJECTS}
    return [_objects(part) for part in value] if isinstance(value, list) else value
