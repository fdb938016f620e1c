"""A long stream in few groups: does task 60 still learn, what does every task cost, how do figures age (README).

    python -m benchmarks.long_stream --tasks 60
    python -m benchmarks.long_stream --tasks 60 --data CL_Benchmark/SuperNI

The example tasks, SuperNI's if --data names them, and variants with real rows go through the worker of one
installation below --work, which is the state: an interrupted call goes on where it was.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.long_stream.variants import WORDINGS, variants, write_variants
from benchmarks.superni.folder import ORDERS, cut, read_tasks, write_package
from benchmarks.superni.methods import GOES_ON, KEPT
from components.evaluation.accuracy_matrix import AccuracyMatrix

FIRST = 10
"""The earliest tasks, whose figures are followed to the end."""
QUICK = ("tuning.steps=8", "evaluation.validation_rows=10")


def read_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.long_stream",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--rows", type=int, default=60, help="training rows a task")
    parser.add_argument("--validation-rows", type=int, default=10)
    parser.add_argument("--test-rows", type=int, default=20)
    parser.add_argument("--data", type=Path, help="folder with SuperNI's tasks, which then follow the examples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=10, help="tasks between two lines of the table")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="setting of the installation")
    parser.add_argument("--work", type=Path, default=Path(".lcia/long_stream"))
    parser.add_argument("--quick", action="store_true", help="3 tasks of 8 steps")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.tasks, arguments.every, arguments.set = 3, 1, [*QUICK, *arguments.set]
    arguments.work = arguments.work.absolute()
    return arguments


def packages(arguments: argparse.Namespace) -> list[Path]:
    """Packages of the stream, in order: examples, SuperNI if there is a folder, variants."""
    folder = arguments.work / "packages"
    rows = {"train": arguments.rows, "validation": arguments.validation_rows, "test": arguments.test_rows}
    public: list[Path] = []
    if arguments.data is not None:
        sources = (cut(s, arguments.seed, arguments.rows, arguments.test_rows)
                   for s in read_tasks(arguments.data, ORDERS["1"]))  # fmt: skip
        public = [write_package(source, folder, KEPT) for source in sources]
    own = write_variants(variants(max(0, arguments.tasks - len(public))), folder, rows)
    return [*own[: len(WORDINGS)], *public, *own[len(WORDINGS) :]][: arguments.tasks]


def main(argv: Sequence[str] | None = None) -> None:
    """Bring the stream through the worker and print the table."""
    arguments = read_arguments(argv)
    arguments.work.mkdir(parents=True, exist_ok=True)
    stream = packages(arguments)
    from benchmarks.superni.stream import learn_all, open_state
    from lcia.operations.figures import accuracy_matrix

    overrides = [*GOES_ON, f"tuning.seed={arguments.seed}", *arguments.set]
    instance = open_state(arguments.work / "home", overrides)
    facts = learn_all(instance, stream, lambda words: print(words, flush=True))
    matrix = accuracy_matrix(instance)
    print(f"settings beside the shipped ones: {' '.join(overrides)}\n\n{table(matrix, facts, arguments.every)}")
    for one in facts:
        if one["state"] != "promoted" or one["answers"]:
            print(f"{one['task']}: {one['state']}; {'; '.join(one['answers']) or one['reason']}")
    print(json.dumps(aging(matrix, len(matrix.tasks))))


def table(matrix: AccuracyMatrix, facts: Sequence[dict[str, Any]], every: int) -> str:
    """Markdown: cost of a task and figures of the version after 1, `every`, 2 `every`, ... tasks."""
    learnt = [one for one in facts if one["task"] in matrix.tasks]
    marks = sorted({1, *range(every, len(learnt) + 1, every), len(learnt)})
    head = ["tasks", "wall s", "CPU s", "of it learning s", "predictions made", "carried", "rows visited"]
    head += ["groups", "tasks of its group", "state MB", "Avg.ACC", f"Avg.ACC, first {FIRST}", f"BWT, first {FIRST}"]
    head += ["New, these tasks"]
    lines, before = [head, ["---"] * len(head)], 0
    for mark in marks:
        part = learnt[before:mark]
        figures = aging(matrix, mark)
        new = [matrix.rows[j][j] for j in range(before, mark)]
        cells = [
            str(mark),
            *(f"{_mean(one[key] for one in part):.0f}" for key in ("wall_seconds", "cpu_seconds", "learn_seconds")),
            *(f"{_mean(one[key] for one in part):.0f}" for key in ("predicted", "carried")),
            f"{_mean(one['visits_new'] + one['visits_old'] for one in part):.0f}",
            str(part[-1]["groups"]),
            f"{_mean(one['group_tasks'] for one in part):.1f}",
            f"{part[-1]['state_bytes'] / 2**20:.0f}",
            *(_words(figures[name]) for name in ("avg_acc", "first_avg_acc", "first_bwt")),
            _words(_mean(x for x in new if x is not None)),
        ]
        lines.append(cells)
        before = mark
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def aging(matrix: AccuracyMatrix, count: int) -> dict[str, float | None]:
    """Figures of the version after `count` tasks: over all, and over the first ones."""
    assert matrix.scores is not None
    then = AccuracyMatrix.from_scores(matrix.tasks[:count], matrix.scores[:count])
    first = then.part(then.tasks[:FIRST])
    return {"tasks": count, "avg_acc": then.avg_acc, "bwt": then.bwt, "first_avg_acc": first.avg_acc,
            "first_bwt": first.bwt}  # fmt: skip


def _words(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
