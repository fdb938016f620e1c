"""Random changes of an exported log, each of which `verify_export` has to find."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.audit.keys import SigningKey
from components.audit.log import head_path
from components.audit.merkle import add_leaf, leaf_hash, root_of
from components.audit.verify import verify_export
from components.storage.objects import canonical, parse_json

Lines = list[bytes]
FIELDS = ("index", "at", "actor", "action", "subject", "details", "previous", "hash", "root")


@dataclass
class Tally:
    """Mutations of one kind."""

    tried: int = 0
    found: int = 0


def changed_byte(lines: Lines, draw: random.Random) -> Lines:
    """Another value, one more or one less byte, anywhere."""
    content = bytearray(b"".join(lines))
    place, way = draw.randrange(len(content)), draw.randrange(3)
    if way == 0:
        content[place] = (content[place] + draw.randrange(1, 256)) % 256
    elif way == 1:
        content.insert(place, draw.randrange(256))
    else:
        del content[place]
    return [bytes(content)]


def changed_field(lines: Lines, draw: random.Random) -> Lines:
    """Another value of one field, canonical as before; nothing is hashed anew."""
    place, field = draw.randrange(len(lines)), draw.choice(FIELDS)
    value = parse_json(lines[place])
    where = value if field in ("hash", "root") else value["body"]
    before = where[field]
    if field == "index":
        where[field] = before + draw.randrange(1, 9)
    elif field == "actor":
        where[field] = {**before, "assured": not before["assured"]}
    elif field == "details":
        where[field] = {**before, "reason": f"changed {draw.random()}"}
    else:
        where[field] = f"{draw.getrandbits(256):064x}"
    return [*lines[:place], canonical(value) + b"\n", *lines[place + 1 :]]


def dropped(lines: Lines, draw: random.Random) -> Lines:
    """One entry is gone, not the last (that is a cut)."""
    place = draw.randrange(len(lines) - 1)
    return lines[:place] + lines[place + 1 :]


def duplicated(lines: Lines, draw: random.Random) -> Lines:
    """One entry stands a second time, anywhere."""
    place = draw.randrange(len(lines) + 1)
    return [*lines[:place], draw.choice(lines), *lines[place:]]


def swapped(lines: Lines, draw: random.Random) -> Lines:
    """Two entries changed places."""
    first, second = draw.sample(range(len(lines)), 2)
    moved = [*lines]
    moved[first], moved[second] = moved[second], moved[first]
    return moved


def cut(lines: Lines, draw: random.Random) -> Lines:
    """The last entries are gone."""
    return lines[: draw.randrange(len(lines))]


def hashed_again(lines: Lines, draw: random.Random) -> Lines:
    """One entry is changed, dropped or inserted, and everything after it made consistent again, without the key."""
    bodies = [parse_json(line)["body"] for line in lines]
    place, way = draw.randrange(len(lines)), draw.randrange(3)
    if way == 0:
        bodies[place] = {**bodies[place], "subject": f"{draw.getrandbits(256):064x}"}
    elif way == 1:
        del bodies[place]
    else:
        bodies.insert(place, {**bodies[place], "action": "candidate.approved"})
    return consistent(bodies)


def consistent(bodies: list[dict[str, object]]) -> Lines:
    """A log of these bodies with right indexes, hashes and roots."""
    lines: Lines = []
    peaks: tuple[bytes, ...] = ()
    previous = ""
    for index, body in enumerate(bodies):
        content = canonical({**body, "index": index, "previous": previous})
        leaf = leaf_hash(content)
        peaks, previous = add_leaf(peaks, index, leaf), leaf.hex()
        tail = f',"hash":"{previous}","root":"{root_of(peaks).hex()}"}}\n'
        lines.append(b'{"body":' + content + tail.encode())
    return lines


Mutation = Callable[[Lines, random.Random], Lines]
ALONE: tuple[Mutation, ...] = (changed_byte, changed_field, dropped, duplicated, swapped)
WITH_HEAD: tuple[Mutation, ...] = (cut, hashed_again)
"""The first are found by the file alone, the others need a signed head that was kept elsewhere."""


def tried(export: Path, key: SigningKey, count: int, seed: int, folder: Path) -> tuple[dict[str, Tally], bool]:
    """Outcomes of `count` mutations, and True if every cut without a head was called "freshness not proven".

    The head of `export` plays the one that was kept elsewhere; none lies beside the mutated file.
    """
    draw = random.Random(seed)
    lines = export.read_bytes().splitlines(keepends=True)
    whole, kept = b"".join(lines), head_path(export)
    tallies: dict[str, Tally] = {mutate.__name__: Tally() for mutate in ALONE + WITH_HEAD}
    path, honest = folder / "mutated.jsonl", True
    while sum(tally.tried for tally in tallies.values()) < count:
        mutate = draw.choice(ALONE + WITH_HEAD)
        content = b"".join(mutate(lines, draw))
        if content == whole:
            continue
        path.write_bytes(content)
        found = verify_export(path, key.public, kept) if mutate in WITH_HEAD else verify_export(path)
        tallies[mutate.__name__].tried += 1
        tallies[mutate.__name__].found += not found.ok
        if mutate is cut:
            alone = verify_export(path)
            honest &= alone.ok and "freshness not proven" in alone.freshness
    return tallies, honest


def table(tallies: dict[str, Tally]) -> str:
    """One line a kind."""
    return "\n".join(f"{name:14} {tally.found:6} of {tally.tried:6} found" for name, tally in tallies.items())
