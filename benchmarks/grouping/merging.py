"""What two adapters lose when they become one (`grouping.at_cap: merge`), on the real model.

    python -m benchmarks.grouping.merging STATE_FOLDER

Every task is learnt alone with the default settings; pairs are merged with several weights and scored on all test rows.
"""

import itertools
import sys
from pathlib import Path

from components.evaluation.prediction import Evaluator
from components.grouping.pool import Pool
from components.model.adapters import read_weights, store_adapter
from components.model.merging import merge_adapters
from components.model.workbench import Workbench
from components.settings import load_settings
from components.storage.objects import ObjectStore
from components.tasks.package import read_package
from components.tasks.snapshot import take_snapshot
from components.tuning.task import tune_task

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
TASKS = ("movie_sentiment", "passive_voice", "negate_sentence")
WEIGHTS = (1.0, 0.75, 0.5)


def main() -> None:
    settings = load_settings(home_folder=Path(sys.argv[1]).absolute())
    store, bench = ObjectStore(settings.storage.objects), Workbench.load(settings)
    evaluator = Evaluator(bench.trunk, bench.slot, settings.evaluation.batch_rows)
    snapshots = {name: take_snapshot(read_package(EXAMPLES / name), store) for name in TASKS}
    adapters, curvatures = {}, {}
    for name, snapshot in snapshots.items():
        empty = Pool.empty("benchmark", bench.base.digest)
        record = store.get_json(tune_task(store, settings, bench, snapshot, empty, None, f"merging {name}"))
        adapters[name] = bench.slot.fetch(store, record["points"]["live"])
        curvatures[name] = read_weights(store.get(record["curvature"])) if record["curvature"] else None

    def score(tensors: dict, name: str) -> float:
        digest = store_adapter(store, bench.slot.files(tensors, bench.base.digest))
        rows = snapshots[name].rows("test")
        queries = [evaluator.query(snapshots[name].task, row, digest) for row in rows]
        made = evaluator.predict(queries, {digest: tensors}, scores_only=True)
        return sum(prediction.score for prediction in made) / len(rows)

    for name in TASKS:
        print(f"{name} alone: {score(adapters[name], name):.3f}", flush=True)
    for first, second in itertools.combinations(TASKS, 2):
        for weight in WEIGHTS:
            merged, _ = merge_adapters(
                adapters[first], adapters[second], (weight, weight), (curvatures[first], curvatures[second])
            )
            print(
                f"{first} + {second}, weight {weight}: {score(merged, first):.3f} {score(merged, second):.3f}",
                flush=True,
            )
        mean = {key: (adapters[first][key] + adapters[second][key]) / 2 for key in adapters[first]}
        print(f"{first} + {second}, entrywise mean: {score(mean, first):.3f} {score(mean, second):.3f}", flush=True)


if __name__ == "__main__":
    main()
