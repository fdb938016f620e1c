"""Cost of all forgetting evaluations of a long lineage, against an evaluator that runs everything again each time.

    python -m benchmarks.evaluation.cost            # 50 tasks in 5 groups
    python -m benchmarks.evaluation.cost --quick    # 10 tasks, a smoke run of the same

The product's cost is measured in full. What the others cost a task is measured on a sample of tasks under the last
version, and multiplied by how often each would be run. CPU time of one thread. The last line is one JSON object.
"""

import argparse
import json
import os
import time
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from benchmarks.evaluation.chain import FULL, GROUPS, QUICK, Chain, Learnt
from components.evaluation.carrying import Predictor, Version, Work
from components.evaluation.forgetting import ParentVersion
from components.evaluation.metrics import METRICS
from components.evaluation.prediction import Evaluator, Query
from components.evaluation.recheck import reevaluate
from components.model.generation import generate_greedy
from components.model.trunk import Trunk
from components.tasks.snapshot import Snapshot, load_snapshot

PLAIN = "plain greedy, row by row"
WAYS = (
    PLAIN,
    "plain greedy, batches",
    "certificate, row by row",
    "certificate, batches",
    "certificate, trunk, row by row",
    "certificate, trunk, batches",
)


def main() -> None:
    """Run the chain, the sample and the comparisons; print tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("build/benchmark-evaluation"))
    parser.add_argument("--models", default=".lcia/models", help="folder of converted base models")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work = arguments.work / ("quick" if arguments.quick else "full")
    work.mkdir(parents=True, exist_ok=True)
    chain = Chain(work, arguments.models, QUICK if arguments.quick else FULL)
    learnt, champion = lineage(chain, kept_states=False)
    overheads(chain, learnt)
    identical = compared(chain, [learnt[len(learnt) // 2].record, learnt[-1].record])
    seconds, same = sample(chain, champion)
    plain = report(seconds, chain.size.tasks)
    speedup = product("the product, as measured", learnt, plain)
    identical = identical and same
    if not arguments.quick:
        kept, _ = lineage(chain, kept_states=True)
        product("the product, states kept from task to task", kept, plain)
        identical = identical and essence(chain, learnt[-1].record) == essence(chain, kept[-1].record)
    print(json.dumps({"speedup": round(speedup, 1), "identical": identical}))


def lineage(chain: Chain, *, kept_states: bool) -> tuple[list[Learnt], ParentVersion]:
    """All evaluations of the product, and the last champion."""
    versions: list[Learnt] = []
    for learnt, _, _ in chain.run(kept_states=kept_states):
        versions.append(learnt)
        record = learnt.record
        print(
            f"{len(versions):3d} {learnt.name:22s} {learnt.seconds:6.2f} s, of it model {learnt.model_seconds:6.2f} s; "
            f"{record['predicted']} rows predicted, {record['carried']} carried over",
            flush=True,
        )
    return versions, chain.champion(versions[-1].record)


def overheads(chain: Chain, learnt: list[Learnt]) -> None:
    """CPU seconds beside the model: of the chain's own tasks, and of the same task on small and large pools."""
    snapshots, first, last = chain.snapshots(), len(GROUPS), len(learnt)
    own = [f"task {n} {learnt[n - 1].overhead:.3f} s" for n in (first, last)]
    print(f"\noverhead in the chain: {', '.join(own)}")
    best: dict[int, float] = defaultdict(lambda: float("inf"))
    for _ in range(3):
        for number in (first, last):  # both open a group, so that both predict the same rows
            champion = chain.champion(learnt[number - 2].record)
            again = chain.learn(snapshots[number - 1], champion, None, chain.evaluator())
            best[number] = min(best[number], again.overhead)
    print(
        f"overhead where the task opens a group: task {first} {best[first]:.3f} s, task {last} {best[last]:.3f} s, "
        f"ratio {best[last] / best[first]:.2f}"
    )


def compared(chain: Chain, records: list[dict]) -> bool:
    """True if all stored predictions of some versions repeat, near ties excepted."""
    good = True
    for record in records:
        predictor = Predictor(chain.store, chain.settings, chain.evaluator())
        report = reevaluate(predictor, record)
        good = good and report.ok
        print(
            f"\nall {report.rows} rows of {report.tasks} tasks predicted again: {len(report.mismatches)} differ, "
            f"{sum(m.near_tie for m in report.mismatches)} of them near ties",
            flush=True,
        )
    return good


def essence(chain: Chain, record: dict) -> list:
    """Evidence that a gate would get of a version."""
    rows = [chain.store.get_json(d)["rows"] for d in record["predictions"].values()]
    return [(row["key"], row["text"], row["score"]) for each in rows for row in each]


def sample(chain: Chain, champion: ParentVersion) -> tuple[dict[str, dict[str, tuple[float, float]]], bool]:
    """CPU seconds a task takes, by way and group, first and second time; and whether all ways agree with the record.

    The sample is each group's last task, under the last version.
    """
    version = Version.of(champion.pool, chain.settings)
    entries = {entry.name: entry for entry in champion.pool.tasks()}
    seconds: dict[str, dict[str, tuple[float, float]]] = {way: {} for way in WAYS}
    same = True
    for group in GROUPS:
        snapshot = load_snapshot(chain.store, entries[f"{group}_{chain.size.tasks:02d}"].task)
        rows = chain.store.get_json(champion.evaluation["predictions"][snapshot.task.name])["rows"]
        for way in WAYS:
            first, again, made = _measured(chain, version, snapshot, way)
            seconds[way][group] = first, again
            same = _agree(way, snapshot, rows, made, chain.settings.evaluation.tie_gap) and same
        print(f"{group}: " + "; ".join(f"{w} {seconds[w][group][0]:.2f} s" for w in WAYS), flush=True)
    return seconds, same


def _measured(chain: Chain, version: Version, snapshot: Snapshot, way: str) -> tuple[float, float, list[tuple]]:
    rows = snapshot.rows("test")
    evaluator = chain.evaluator(1 if "row by row" in way else None)
    if "trunk" not in way:
        evaluator = Evaluator(_whole(chain), chain.bench.slot, evaluator.batch_rows)
    predictor = Predictor(chain.store, chain.settings, evaluator)
    queries = predictor.queries(version, snapshot, rows, version.groups([row.instruction for row in rows]))
    times, out = [], []
    for _ in range(2 if "trunk" in way else 1):
        start = time.process_time()
        if "plain" in way:
            out = _plain(chain, queries, evaluator.batch_rows)
        else:
            out = [(p.text, p.score, p.gap) for p in predictor.fresh([Work(queries, way)])[0]]
        times.append(time.process_time() - start)
    return times[0], times[-1], out


def _whole(chain: Chain) -> Trunk:
    trunk = Trunk(chain.bench.base, chain.bench.slot)
    trunk.split = False
    return trunk


def _plain(chain: Chain, queries: list[Query], batch_rows: int) -> list[tuple]:
    """Greedy decoding of every row; all queries have one adapter."""
    (adapter,) = {query.adapter for query in queries}
    slot, base = chain.bench.slot, chain.bench.base
    slot.load(slot.fetch(chain.store, adapter))
    limit = queries[0].task.decoding.max_new_tokens
    prompts = [query.rendering.prompt for query in queries]
    results = []
    for start in range(0, len(prompts), batch_rows):  # rows one by one share no prefix either
        results += generate_greedy(base.model, prompts[start : start + batch_rows], limit, base.ends, batch_rows)
    texts = [base.tokenizer.decode(each.tokens, skip_special_tokens=True) for each in results]
    scores = [METRICS[q.task.metric](text, q.example.output) for q, text in zip(queries, texts, strict=True)]
    return list(zip(texts, scores, [each.gap for each in results], strict=True))


def _agree(way: str, snapshot: Snapshot, rows: list[dict], results: list[tuple], tie_gap: float) -> bool:
    pairs = list(zip(rows, results, strict=True))
    differ = [(old, new) for old, new in pairs if (old["text"], old["score"]) != new[:2]]
    for old, new in differ:
        print(
            f"{snapshot.task.name}, {way}: {old['text']!r} stored, {new[0]!r} now, gaps {old['gap']:.2g}, {new[2]:.2g}"
        )
    return all(min(old["gap"], new[2]) <= tie_gap for old, new in differ)


def report(seconds: dict, tasks: int) -> float:
    """Print what the whole lineage costs by each way; returns what plain greedy without proofs does.

    Each new task is also evaluated once under the champion, by every evaluator.
    """
    groups = len(GROUPS)
    every = {g: tasks + sum(k * groups - n for k in range(1, tasks + 1)) for n, g in enumerate(GROUPS)}
    changed = dict.fromkeys(GROUPS, tasks + tasks * (tasks + 1) // 2)  # only the group that learns is predicted again
    plain = sum(seconds[PLAIN][g][0] * every[g] for g in GROUPS)
    print(f"\n{sum(every.values())} evaluations of a task without proofs, {sum(changed.values())} with")
    print(f"{'':40s} {'no proofs, s':>14s} {'ratio':>6s} {'with proofs, s':>15s} {'ratio':>6s}")

    def line(words: str, cost) -> None:
        without, proven = (sum(cost(g, count[g]) for g in GROUPS) for count in (every, changed))
        print(f"{words:40s} {without:14.0f} {plain / without:6.1f} {proven:15.0f} {plain / proven:6.1f}")

    for way in WAYS:
        each = seconds[way]
        line(way, lambda g, n, each=each: each[g][0] * n)
        if "trunk" in way:  # with states kept a task's states are computed once in the whole lineage
            line("  states kept", lambda g, n, each=each: (each[g][0] - each[g][1]) * tasks + each[g][1] * n)
    return plain


def product(words: str, runs: list[Learnt], plain: float) -> float:
    """Print and return how many times cheaper the measured lineage is than plain greedy without proofs."""
    total = sum(each.seconds for each in runs)
    print(f"{words:40s} {'':14s} {'':6s} {total:15.0f} {plain / total:6.1f}", flush=True)
    return plain / total


if __name__ == "__main__":
    main()
