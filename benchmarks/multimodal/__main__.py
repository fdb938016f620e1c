"""Is an image task forgotten, and does the method protect it? Three tasks about digits in one adapter, in turn.

    .venv/bin/python -m benchmarks.multimodal build/digits --seeds 0 1 2

`build/digits` is what examples/multimodal/make.py writes. Tuning and evaluation are the product's own, without the
pipelines around them; every finished version is found again by a repeated call. Results go to results.jsonl here.
"""

import argparse
import json
import time
from pathlib import Path

from components.evaluation.forgetting import Forgetting, ParentVersion
from components.evaluation.history import lineage_matrix
from components.evaluation.prediction import Evaluator
from components.grouping.pool import Pool
from components.model.workbench import Workbench
from components.settings import Settings, load_settings
from components.storage.objects import ObjectStore
from components.tasks.package import read_package
from components.tasks.snapshot import Snapshot, take_snapshot
from components.tuning.task import tune_task

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
TASKS = ("read_digit", "even_or_odd", "larger_digit")
BASIS = (
    "tuning.max_rows=96",
    "tuning.steps=30",
    "tuning.ema.fisher_rows=20",
    "evaluation.validation_rows=24",
    "base_model.system_prompt=''",
    "base_model.threads=1",
)
"""Less than the example does: what two busy cores do in a while."""
WITHOUT = ("tuning.ema.rule=none", "tuning.rehearsal.share=0", "tuning.pseudo_rehearsal.share=0")
METHODS = {
    "plain LoRA": (*WITHOUT, "tuning.curve=[]"),
    "the method": (),
    "the method, no rows kept": ("tuning.rehearsal.share=0",),
}


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for method in arguments.methods:
            if not any((r["method"], r["seed"]) == (method, seed) for r in _known()):
                result = run(arguments.folder, method, seed)
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
    print(table(_known()))


def run(folder: Path, method: str, seed: int) -> dict:
    """Learn the three tasks; scores on test rows after each, and CPU seconds."""
    first, later = settings_of(folder, seed), settings_of(folder, seed, METHODS[method])
    began = time.process_time()
    bench = Workbench.load(later)
    store = ObjectStore(f"file://{(folder / 'benchmark' / 'objects').absolute()}")
    evaluator = Evaluator(bench.trunk, bench.slot, later.evaluation.batch_rows)
    champion, records = ParentVersion(None, Pool.empty("digits", bench.base.digest), None), []
    for name in TASKS:
        settings = later if records else first  # a new group trains plainly under every method: its task is tuned once
        record = _learn(store, settings, bench, evaluator, champion, read(folder, name, store))
        records.append(record)
        pool = Pool.from_manifest(store.get_json(record["pool"]))
        champion = ParentVersion(record["pool"], pool, record)
        print(f"{method}, seed {seed}: {name} {record['scores']} at {record['chosen']}", flush=True)
    matrix = lineage_matrix(store, records)
    return {
        "method": method,
        "seed": seed,
        "rows": [[record["scores"].get(name) for name in TASKS] for record in records],
        "chosen": [record["chosen"] for record in records],
        "avg": matrix.avg_acc,
        "new": matrix.new_acc,
        "bwt": matrix.bwt,
        "cpu_seconds": round(time.process_time() - began),
        "date": time.strftime("%Y-%m-%d"),
    }


def settings_of(folder: Path, seed: int, changes: tuple[str, ...] = ()) -> Settings:
    """The example's settings, made smaller."""
    own = (f"base_model.name={(folder / 'base').absolute()}", f"tuning.seed={seed}")
    config = HERE.parents[1] / "examples" / "multimodal" / "digits.yaml"
    return load_settings(config, (*own, *BASIS, *changes), {}, home_folder=folder / "benchmark")


def read(folder: Path, name: str, store: ObjectStore) -> Snapshot:
    """A task package as a snapshot."""
    return take_snapshot(read_package(folder / "tasks" / name), store)


def _learn(store, settings, bench, evaluator, champion, snapshot) -> dict:
    """The evaluation record of the version that learnt the task; made once."""
    config = store.put_json(settings.content())
    group = champion.pool.groups[0].id if champion.pool.groups else None
    key = f"{snapshot.digest} {champion.digest} {config}"
    index = store.scratch(f"benchmark {key}")
    evaluation = index.read("evaluation")
    if evaluation is None:
        tuning = tune_task(store, settings, bench, snapshot, champion.pool, group, key)
        digest = Forgetting(store, settings, evaluator, champion, snapshot).run(store.get_json(tuning), config)
        index.write("evaluation", digest.encode())
        evaluation = digest.encode()
    return store.get_json(evaluation.decode())


def table(results: list[dict]) -> str:
    """Means over the seeds."""
    lines = [
        "| one adapter, three tasks | seeds | after the last task: read / parity / larger | Avg.ACC | New.ACC | BWT |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for method in METHODS:
        own = [r for r in results if r["method"] == method]
        if own:
            last = " / ".join(f"{sum(r['rows'][-1][i] for r in own) / len(own):.2f}" for i in range(len(TASKS)))
            means = " | ".join(_spread([r[key] for r in own]) for key in ("avg", "new", "bwt"))
            lines.append(f"| {method} | {len(own)} | {last} | {means} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    mean = sum(values) / len(values)
    return f"{mean:+.3f} [{min(values):+.3f}, {max(values):+.3f}]" if len(values) > 1 else f"{mean:+.3f}"


def _known() -> list[dict]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


if __name__ == "__main__":
    main()
