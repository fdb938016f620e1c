"""Planted faults found, and false alarms on the clean example tasks: `python -m benchmarks.quality.planted`."""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from components.quality.validation import Background, ValidationResult, validate
from components.settings import ValidationSettings
from components.storage.objects import ObjectStore
from components.tasks.package import Package, read_package
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot, take_snapshot

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
Rows = list[Example]


def words_of(row: Example) -> list[str]:
    return row.subject.split()


def one_word(row: Example, rng: np.random.Generator) -> Example:
    words = words_of(row)
    words[int(rng.integers(len(words)))] = "zyx"
    return replace(row, input=" ".join(words))


def with_text(text: str) -> Callable[[Example, np.random.Generator], Example]:
    return lambda row, _: replace(row, input=f"{row.input} {text}")


def other_answer(row: Example, _: np.random.Generator) -> Example:
    return replace(row, output=row.output + "x")


SPOILS: dict[str, tuple[str, Callable[[Example, np.random.Generator], Example]]] = {
    "e-mail address": ("personal_data", with_text("mail jo.doe@example.org")),
    "phone number": ("personal_data", with_text("call +49 30 1234567")),
    "card number": ("personal_data", with_text("4111 1111 1111 1111")),
    "another script": ("scripts", lambda row, _: replace(row, input="это совсем другая строка")),
    "control character": ("input_control_characters", with_text("bell \x07")),
    "zero-width space": ("input_invisible_characters", with_text("zero\u200bwidth")),
    "blank output": ("output_not_blank", lambda row, _: replace(row, output="\u00a0")),
    "output outside choices": ("choices", other_answer),
    "beyond the context": ("context", with_text("and so on " * 100)),
}
"""Kind -> the rule that should see it, and how a row is spoilt."""
COPIES = {"exact duplicate": "duplicates", "near duplicate": "near_duplicates", "conflict": "conflicts"}
LEAKS = {"own train in test": "own_leaks", "own train in test, reworded": "reworded", "earlier train in test": "leaks"}
KINDS = {**{kind: rule for kind, (rule, _) in SPOILS.items()}, **COPIES, **LEAKS, "earlier test in train": "leaks"}
LONG = 8
"""Words of a row from which one exchanged word leaves a near duplicate."""


def plant(package: Package, other: Package, count: int, seed: int) -> tuple[dict[str, Rows], dict[str, set[int]]]:
    """Splits with `count` rows of every kind of fault, and the row numbers of each kind."""
    rng = np.random.default_rng(seed)
    train, test = list(package.splits["train"]), list(package.splits["test"])
    free = [int(place) for place in rng.permutation(len(train))]
    planted: dict[str, set[int]] = {}
    for kind, (rule, spoil) in SPOILS.items():
        if rule == "choices" and package.task.choices is None:
            continue
        places = [free.pop() for _ in range(count)]
        for place in places:
            train[place] = spoil(train[place], rng)
        planted[kind] = {place + 1 for place in places}
    for kind in COPIES:
        enough = [place for place in free if kind != "near duplicate" or len(words_of(train[place])) >= LONG]
        pairs = [enough[2 * n : 2 * n + 2] for n in range(count) if len(enough) >= 2 * n + 2]
        for first, second in map(sorted, pairs):
            free.remove(first)
            free.remove(second)
            if kind == "exact duplicate":
                train[second] = train[first]
            else:
                train[second] = (
                    one_word(train[first], rng) if kind == "near duplicate" else other_answer(train[first], rng)
                )
        planted[kind] = {max(pair) + 1 for pair in pairs}
    spots = iter(range(len(test)))
    for kind in LEAKS:
        places = [next(spots) for _ in range(count)]
        for place in places:
            row = train[free.pop()]
            worded = next(r.instruction for r in package.splits["train"] if r.instruction != row.instruction)
            source = replace(row, instruction=worded) if "reworded" in kind else row
            test[place] = other.splits["train"][place] if "earlier" in kind else source
        planted[kind] = {place + 1 for place in places}
    places = [free.pop() for _ in range(count)]
    for place in places:
        train[place] = other.splits["test"][place % 200]
    planted["earlier test in train"] = {place + 1 for place in places}
    return {"train": train, "test": test}, planted


def check(task: Snapshot, prior: list[Snapshot]) -> ValidationResult:
    settings = ValidationSettings()
    return validate(
        task, prior, settings, Background(too_long=lambda rows: [300 * (len(r.input or "") > 900) for r in rows])
    )


def snapshot(package: Package, store: ObjectStore, **splits: Rows) -> Snapshot:
    made = {split: tuple(splits.get(split, rows)) for split, rows in package.splits.items()}
    return take_snapshot(replace(package, splits=made), store)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three of the eight tasks")
    names = NAMES[:3] if parser.parse_args().quick else NAMES
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = ObjectStore(f"file://{folder}/objects")
        packages = {name: read_package(EXAMPLES / name) for name in names}
        clean = {name: snapshot(package, store) for name, package in packages.items()}
        alarms = 0
        for name in names:
            result = check(clean[name], [clean[other] for other in names if other != name])
            broken = [c.name for c in result.checks if not c.success]
            alarms += len(broken)
            print(f"clean {name}: {broken or 'no alarm'}, {len(result.quarantined_rows)} rows set aside", flush=True)
        for index, name in enumerate(names):
            for count in (1, 5):
                splits, planted = plant(packages[name], packages[names[index - 1]], count, index)
                result = check(snapshot(packages[name], store, **splits), [clean[names[index - 1]]])
                named = {(c.name, c.split): set(c.rows) for c in result.checks}
                for kind, rows in planted.items():
                    split = "test" if kind in LEAKS else "train"
                    found.setdefault((kind, count), []).append((len(rows & named[KINDS[kind], split]), len(rows)))
                aside = {(row.split, row.row) for row in result.quarantined_rows}
                print(f"{name}, {count} of each: {result.verdict}, {len(aside)} rows set aside", flush=True)
    print(f"{alarms} false alarms on {len(names)} clean tasks")
    print("| fault | rule | 1 row a task: named | 5 rows a task: named |\n|---|---|---|---|")
    for kind, rule in KINDS.items():
        cells = [[sum(column) for column in zip(*found[kind, count], strict=True)] for count in (1, 5)]
        print(f"| {kind} | {rule} | {' | '.join(f'{hit} of {all_}' for hit, all_ in cells)} |")
    named, planted_rows = (
        sum(column) for column in zip(*(pair for pairs in found.values() for pair in pairs), strict=True)
    )
    print(json.dumps({"false_alarms": alarms, "rows_planted": planted_rows, "rows_named": named}))


if __name__ == "__main__":
    main()
