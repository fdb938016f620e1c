"""Planted faults found, and false alarms on the clean example tasks: `python -m benchmarks.quality.planted`."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from components.quality.validation import Background, validate
from components.settings import ValidationSettings
from components.storage.objects import ObjectStore
from components.tasks.package import Package, read_package
from components.tasks.rows import Example
from components.tasks.snapshot import Snapshot, take_snapshot

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
SETTINGS = ValidationSettings()
Rows = list[Example]


def words_of(row: Example) -> list[str]:
    return (row.input or row.instruction).split()


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
LEAKS = {"own train in test": "own_leaks", "own train in test, reworded": "reworded"}
EARLIER = {"earlier test in train": "train", "earlier train in test": "test"}


def snapshot(package: Package, store: ObjectStore, **splits: Rows) -> Snapshot:
    made = {split: tuple(splits.get(split, rows)) for split, rows in package.splits.items()}
    return take_snapshot(replace(package, splits=made), store)


def broken(task: Snapshot, prior: list[Snapshot]) -> tuple[set[str], int]:
    from_bytes = Background(too_long=lambda rows: [300 * (len(row.input or "") > 900) for row in rows])
    result = validate(task, prior, SETTINGS, from_bytes)
    return {check.name for check in result.checks if not check.success}, len(result.quarantined_rows)


def plant(package: Package, kind: str, count: int, rng: np.random.Generator) -> dict[str, Rows]:
    """Splits with `count` rows spoilt."""
    train, test = list(package.splits["train"]), list(package.splits["test"])
    places = [int(place) for place in rng.permutation(len(train))]
    if kind in SPOILS:
        for place in places[:count]:
            train[place] = SPOILS[kind][1](train[place], rng)
    elif kind in COPIES:
        long = [place for place in places if len(words_of(train[place])) >= 8] if kind == "near duplicate" else places
        for source, place in zip(long[:count], places[-count:], strict=False):
            copy = {"exact duplicate": lambda r: r, "near duplicate": lambda r: one_word(r, rng)}
            train[place] = copy.get(kind, lambda r: other_answer(r, rng))(train[source])
    else:
        for place in range(count):
            row = train[places[place]]
            other = next(r.instruction for r in train if r.instruction != row.instruction)
            test[place] = replace(row, instruction=other) if "reworded" in kind else row
    return {"train": train, "test": test}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = ObjectStore(f"file://{folder}/objects")
        packages = {name: read_package(EXAMPLES / name) for name in NAMES}
        clean = {name: snapshot(package, store) for name, package in packages.items()}
        alarms = {name: broken(clean[name], [clean[o] for o in NAMES if o != name])[0] for name in NAMES}
        print(
            "clean tasks, each against the seven others:", {n: sorted(a) for n, a in alarms.items() if a} or "no alarm"
        )
        print("| fault | rule | 1 row | 1 % | 5 % | 10 % |\n|---|---|---|---|---|---|")
        kinds = {**{kind: rule for kind, (rule, _) in SPOILS.items()}, **COPIES, **LEAKS}
        for kind, rule in kinds.items():
            cells = []
            for share in (0, 0.01, 0.05, 0.1):
                count = max(1, round(share * 600))
                chosen = [n for n in NAMES if packages[n].task.choices] if rule == "choices" else NAMES
                found = [
                    rule
                    in broken(
                        snapshot(packages[n], store, **plant(packages[n], kind, count, np.random.default_rng(0))), []
                    )[0]
                    for n in chosen
                ]
                cells.append(f"{sum(found)} of {len(found)}")
            print(f"| {kind} | {rule} | {' | '.join(cells)} |", flush=True)
        for kind, split in EARLIER.items():
            cells = []
            for share in (0, 0.01, 0.05, 0.1):
                found = []
                for index, name in enumerate(NAMES):
                    other = packages[NAMES[index - 1]]
                    rows, source = list(packages[name].splits[split]), "test" if split == "train" else "train"
                    count = max(1, round(share * len(rows)))
                    rows[:count] = other.splits[source][:count]
                    rules, aside = broken(snapshot(packages[name], store, **{split: rows}), [clean[NAMES[index - 1]]])
                    found.append((aside >= count, "leaks" in rules))
                cells.append(f"{sum(a for a, _ in found)} set aside, {sum(r for _, r in found)} refused")
            print(f"| {kind} | leaks | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
