"""A public stream through the product: AP, forgetting, BWT and New of methods on SuperNI (README).

    python -m benchmarks.superni --data CL_Benchmark/SuperNI --order 1 --methods default,plain,replay_10 --work DIR

Each method has an installation of its own below --work, and a line in results.jsonl there when it ends; an interrupted
call goes on where it was. Everything is the shipped default but the settings of methods.py and those of --set. The last
line is one JSON object.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.superni.folder import ORDERS, Source, cut, read_tasks, shortest, write_package
from benchmarks.superni.methods import GOES_ON, METHODS, Method
from benchmarks.superni.report import events, read, table
from benchmarks.superni.scores import figures

FIGURES = ("avg_acc", "forgetting", "bwt", "new_acc")
RESULTS = "results.jsonl"
FROM_WORKER = ("default_one", "default", "plain", "replay_10", "replay_2", "no_rows_one", "no_rows", "per_task")
"""Methods whose state gives rows and visits to those of the tuner: the first of these that has ended."""


def read_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, checked before any work."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.superni", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with SuperNI's tasks, as SAPT's repository has it")
    parser.add_argument("--order", choices=ORDERS, default="1")
    parser.add_argument("--methods", help=f"separated by commas; default all: {', '.join(METHODS)}")
    parser.add_argument("--tasks", type=int, default=15, help="number of tasks, the first of the order")
    parser.add_argument("--shortest", action="store_true", help="of the order, the tasks with the shortest inputs")
    parser.add_argument("--rows", type=int, help="most training rows a task, drawn at random; default all")
    parser.add_argument("--test-rows", type=int, help="most test rows a task, drawn at random; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="setting of every method")
    parser.add_argument("--work", type=Path, default=Path(".lcia/superni"))
    parser.add_argument("--report", action="store_true", help="only print the table of what has ended")
    parser.add_argument("--quick", action="store_true", help="2 short tasks of 60 rows, 8 steps, plain and per_task")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.tasks, arguments.shortest, arguments.rows, arguments.test_rows = 2, True, 60, 20
        arguments.methods = arguments.methods or "plain,per_task"
        arguments.set = [*arguments.set, "tuning.steps=8", "evaluation.validation_rows=10"]
    arguments.work = arguments.work.absolute()
    arguments.methods = arguments.methods.split(",") if arguments.methods else list(METHODS)
    unknown = [name for name in arguments.methods if name not in METHODS]
    if unknown:
        parser.error(f"no method {', '.join(unknown)}; there are: {', '.join(METHODS)}")
    if arguments.data is None:
        parser.error("--data is missing: a folder with SuperNI's tasks, such as CL_Benchmark/SuperNI of a copy of the "
                     "repository circle-hit/SAPT; this repository has none of the data")  # fmt: skip
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run what has not ended, each method in a process of its own, and print the table."""
    arguments = read_arguments(argv)
    sources = plan(arguments)
    keys = {name: key_of(METHODS[name], sources, arguments) for name in arguments.methods}
    arguments.work.mkdir(parents=True, exist_ok=True)
    results = arguments.work / RESULTS
    todo = [] if arguments.report else [name for name in keys if not read(results, [keys[name]])]
    for name in sorted(todo, key=lambda each: METHODS[each].by == "tuner"):
        command = [sys.executable, "-m", "benchmarks.superni.run", name, *(sys.argv[1:] if argv is None else argv)]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"{name} did not end; the same call goes on where it was")
    lines = read(results, keys.values())
    print("\n".join(dict.fromkeys(note for source in sources for note in source.notes)))
    print("\n".join(sentence for line in lines for sentence in events(line)))
    print(f"settings of all: {' '.join([*GOES_ON, *arguments.set])}\n\n{table(lines)}")
    print(json.dumps({line["method"]: {name: getattr(figures(line), name) for name in FIGURES} for line in lines}))


def one(name: str, argv: Sequence[str]) -> None:
    """Run one method and add its line to the results; the process that `main` starts does this and nothing else."""
    arguments = read_arguments(argv)
    line = run(METHODS[name], plan(arguments), arguments)
    with (arguments.work / RESULTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def plan(arguments: argparse.Namespace) -> list[Source]:
    """The tasks of the stream, cut and reduced as the command line says."""
    sources = read_tasks(arguments.data, ORDERS[arguments.order])
    sources = shortest(sources, arguments.tasks) if arguments.shortest else sources[: arguments.tasks]
    return [cut(source, arguments.seed, arguments.rows, arguments.test_rows) for source in sources]


def overrides_of(method: Method, arguments: argparse.Namespace) -> list[str]:
    """Settings of a method beside the shipped ones; those of the command line win."""
    models = f"storage.models={arguments.work / 'models'}"
    return [*GOES_ON, *method.settings, f"tuning.seed={arguments.seed}", models, *arguments.set]


def key_of(method: Method, sources: Sequence[Source], arguments: argparse.Namespace) -> str:
    """Name of a run: equal for calls that would do the same."""
    from components.storage.objects import canonical, digest_of

    rows = [[s.name, s.definition, *([[r.input, *r.outputs] for r in part] for part in (s.train, s.dev, s.test))]
            for s in sources]  # fmt: skip
    settings = [*GOES_ON, *method.settings, *arguments.set]
    digest = digest_of(canonical([rows, settings, method.kept, arguments.seed]))[:10]
    return f"{method.name}-order{arguments.order}-seed{arguments.seed}-{digest}"


def run(method: Method, sources: Sequence[Source], arguments: argparse.Namespace) -> dict[str, Any]:
    """One method over the stream; returns its line of the results file."""
    key, overrides = key_of(method, sources, arguments), overrides_of(method, arguments)
    references = {source.name: source.references for source in sources}
    print(f"{key}: {len(sources)} tasks", flush=True)
    home = arguments.work / key
    if method.by == "tuner":
        outcome = _by_tuner(method, sources, arguments, home, overrides)
    else:
        from benchmarks.superni.scores import stream_scores
        from benchmarks.superni.stream import learn_all, open_state

        instance = open_state(home, overrides)
        packages = [write_package(source, home / "packages", method.kept) for source in sources]
        facts = learn_all(instance, packages, lambda words: print(words, flush=True))
        names, scores = stream_scores(instance, references)
        champion = instance.champion()
        outcome = {
            "tasks": names,
            "scores": scores,
            "facts": facts,
            "visits": sum(one.get("visits_new", 0) + one.get("visits_old", 0) for one in facts),
            "adapters": len(instance.pool(champion.digest).groups) if champion else 0,
            "cpu_seconds": round(sum(one["cpu_seconds"] for one in facts), 1),
        }
    outcome["scores"] = [[[round(s, 4) for s in cell] for cell in row] for row in outcome["scores"]]
    head = {"key": key, "method": method.name, "order": arguments.order, "seed": arguments.seed}
    head |= {"date": f"{datetime.now(UTC):%Y-%m-%d}", "overrides": overrides, "planned": len(sources)}
    return {**head, "kept": method.kept, "rows": {s.name: [len(s.train), len(s.dev), len(s.test)] for s in sources},
            **outcome}  # fmt: skip


def _by_tuner(
    method: Method, sources: Sequence[Source], arguments: argparse.Namespace, folder: Path, overrides: list[str]
) -> dict[str, Any]:
    """O-LoRA or joint training on the rows of a stream that went through the worker."""
    from benchmarks.superni.direct import Direct, method_settings
    from benchmarks.superni.stream import open_state
    from components.tasks.snapshot import load_snapshot

    keys = {name: key_of(METHODS[name], sources, arguments) for name in FROM_WORKER}
    done = {line["method"]: line for line in read(arguments.work / RESULTS, keys.values())}
    first = next((name for name in FROM_WORKER if name in done), None)
    if first is None:
        raise SystemExit(f"{method.name} takes its rows and visits from a method that went through the worker, and "
                         f"none has ended in {arguments.work} with these settings; run default_one first")  # fmt: skip
    line = done[first]
    instance = open_state(arguments.work / line["key"], overrides_of(METHODS[first], arguments))
    records = [instance.store.get_json(digest) for digest in instance.lineage(instance.champion().digest)]
    snapshots = [load_snapshot(instance.store, record["task"]) for record in records]
    references = {source.name: source.references for source in sources}
    settings = method_settings(overrides, len(snapshots), folder, wide=method.name == "olora")
    direct = Direct(settings, snapshots, references, folder)
    say = lambda words: print(words, flush=True)  # noqa: E731
    result = direct.olora(say) if method.name == "olora" else direct.joint(line["visits"], say)
    return {"tasks": [s.task.name for s in snapshots], "facts": [], "adapters": 1, "rows_of": first, **result}


if __name__ == "__main__":
    one(sys.argv[1], sys.argv[2:])
