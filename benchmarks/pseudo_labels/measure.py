"""New.ACC of 50 labelled rows with 550 pseudo-labelled ones, against 50 and against 600 labelled rows.

    python -m benchmarks.pseudo_labels.measure --work .lcia/method
    python -m benchmarks.pseudo_labels.measure --report

Everything is kept under --work/pseudo_labels, so an interrupted call goes on where it was, and calls with other --seeds
or --tasks may run side by side. The trunk states of the examples are those of benchmarks/method.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from benchmarks.method.chain import Chains
from components.model.prompts import Rendered, render
from components.settings import TuningSettings, load_settings
from components.storage.objects import ObjectStore, canonical, digest_of
from components.tasks.package import Package
from components.tasks.rows import Example, Unlabelled
from components.tasks.snapshot import Snapshot, take_snapshot
from components.tasks.task_file import Task
from components.tuning.pseudo_labels import Labeller, WordingAnswer, pseudo_label
from components.tuning.rehearsal import select_rows
from components.tuning.tuner import Parent, Tensors, tune

HERE = Path(__file__).resolve().parent
TASKS = ("movie_sentiment", "request_domain", "booking_slot")
RELATED = {"movie_sentiment": "product_sentiment", "request_domain": "assistant_intent", "booking_slot": None}
"""Task that the champion learnt before, from 600 rows: the nearest example; nothing is near to booking_slot."""
LABELLED, TEST_ROWS = 50, 200
PRECISIONS = {"self .9": 0.9, "self .7": 0.7, "self, all": 1e-6}
"""Arms of a new group: labels by a first pass, at least so precise, down to whatever it answers."""


class Remembering(Labeller):
    """A labeller whose answers are kept in a file, as every precision asks for the same ones."""

    file: Path

    def answers(self, task: Task, rows: Sequence[Unlabelled], progress: Any = None) -> list[WordingAnswer]:
        """As `Labeller.answers`."""
        known = json.loads(self.file.read_text()) if self.file.exists() else {}
        missing = [row for row in rows if _key(row) not in known]
        for row, answer in zip(missing, super().answers(task, missing, progress), strict=True):
            known[_key(row)] = [answer.text, answer.gap]
        self.file.write_text(json.dumps(known))
        return [WordingAnswer(*known[_key(row)]) for row in rows]


def _key(row: Unlabelled) -> str:
    return "\n".join(row.question)


class Bench:
    """The chains of the method benchmark, with results in a folder of their own."""

    def __init__(self, work: Path) -> None:
        self.chains = Chains(work)
        self.folder = self.chains.folder = work / "pseudo_labels"
        self.folder.mkdir(exist_ok=True)
        self.store = ObjectStore(f"file://{self.folder / 'objects'}")

    def settings(self, seed: int, share: float = 0.0, precision: float = 0.9) -> TuningSettings:
        """Plain tuning on all rows there are."""
        values = [*self.chains.overrides, "tuning.max_rows=null", "tuning.ema.rule=none", f"tuning.seed={seed}"]
        values += ["tuning.rehearsal.share=0", "tuning.pseudo_rehearsal.share=0"]
        values += [f"tuning.pseudo_labels.share={share}", f"tuning.pseudo_labels.precision={precision}"]
        return load_settings(None, values, {}, self.folder).tuning

    def split(self, task: str, seed: int) -> Snapshot:
        """The task with 50 labelled rows; the other 550 have lost their answers."""
        whole = self.chains.tasks[task]
        rows = whole.rows("train")
        chosen = set(select_rows(len(rows), LABELLED, seed))
        splits = {name: whole.rows(name) for name in ("validation", "test")}
        splits["train"] = tuple(row for i, row in enumerate(rows) if i in chosen)
        rest = tuple(Unlabelled(r.instruction, r.input, r.choices) for i, r in enumerate(rows) if i not in chosen)
        return take_snapshot(Package(HERE, whole.task, splits, (), rest), self.store)

    def adapter(
        self,
        arm: str,
        task: str,
        seed: int,
        rows: Sequence[Example],
        pseudo: Sequence[Example] = (),
        parent: Tensors | None = None,
    ) -> tuple[str, Tensors]:
        """Key and weights after tuning on the rows."""
        settings = self.settings(seed, 0.5 if pseudo else 0.0)
        ids = [[row.id for row in each] for each in (rows, pseudo)]
        key = f"{task}-{arm}-{seed}-{digest_of(canonical(ids))[:12]}".replace(" ", "_")
        file = self.folder / f"{key}.safetensors"
        if not file.exists():
            start = Parent(parent, None) if parent else None
            result = tune(
                self.chains.trunk, self.chains.slot, self._render(rows), (), start, settings, None, 16,
                pseudo=self._render(pseudo),
            )  # fmt: skip
            save_file(dict(result.points["live"]), file)
        return key, load_file(file)

    def _render(self, rows: Sequence[Example]) -> list[Rendered]:
        base = self.chains.base
        return [render(base.tokenizer, base.settings, r.instruction, r.input, r.output) for r in rows]

    def labels(
        self, name: str, snapshot: Snapshot, seed: int, adapter: Tensors | None, precision: float
    ) -> tuple[list[Example], dict[str, Any]]:
        """The rows whose answers by `adapter` (None: the base model) may be trusted."""
        chains = self.chains
        used = {} if adapter is None else {"adapter": adapter}
        route = None if adapter is None else "adapter"
        labeller = Remembering(chains.trunk, chains.slot, lambda texts: [route] * len(texts), used, 32)
        labeller.file = self.folder / f"{snapshot.task.name}-{name}-{seed}-answers.json"
        settings = self.settings(seed, 0.5, precision).pseudo_labels.model_copy(update={"labeller": name})
        return pseudo_label(labeller, snapshot, [], settings, seed)

    def run(self, task: str, seed: int, *, more: bool) -> None:
        """All arms of one task and seed, on request with controls and a champion; finished ones are not repeated."""
        snapshot = self.split(task, seed)
        few, whole = snapshot.rows("train"), self.chains.tasks[task].rows("train")
        gold = {row.question: row for row in whole}
        rest = [gold[row.question] for row in snapshot.unlabelled_rows()]

        def finish(arm: str, made: tuple[str, Tensors], record: Mapping[str, Any] | None = None) -> None:
            if _known(task, arm, seed):
                return
            scores = self.chains.scores(*made, task, "test", TEST_ROWS)
            _add({"task": task, "arm": arm, "seed": seed, **(record or {})}, scores)

        first = self.adapter("50", task, seed, few)
        finish("50", first)
        finish("600", self.adapter("600", task, seed, whole))
        for arm, precision in PRECISIONS.items():
            rows, record = self.labels("self", snapshot, seed, first[1], precision)
            made = self.adapter(arm, task, seed, few, rows) if rows else first
            finish(arm, made, {**record, "right": _right(rows, gold)})
        if more:
            finish("50, seen twice", self.adapter("twice", task, seed, few, few))
            finish("50 + 550 true labels", self.adapter("gold", task, seed, few, rest))
            self._champion(task, seed, snapshot, gold, finish)

    def _champion(self, task: str, seed: int, snapshot: Snapshot, gold: Mapping, finish: Any) -> None:
        """Labels by a champion that learnt the nearest example task, whose adapter the task's tuning starts from."""
        related = RELATED[task]
        parent = None
        if related:
            parent = self.adapter("600", related, seed, self.chains.tasks[related].rows("train"))[1]
        few, whole = snapshot.rows("train"), self.chains.tasks[task].rows("train")
        rows, record = self.labels("champion", snapshot, seed, parent, 0.9)
        record = {**record, "right": _right(rows, gold)}
        first = self.adapter("champion 50", task, seed, few, parent=parent)
        finish("from champion: 50", first)
        finish("from champion: 600", self.adapter("champion 600", task, seed, whole, parent=parent))
        made = self.adapter("champion labels", task, seed, few, rows, parent) if rows else first
        finish("from champion: champion .9", made, record)


def _right(rows: Sequence[Example], gold: Mapping[tuple[str, str], Example]) -> int:
    return sum(row.output == gold[row.question].output.strip() for row in rows)


def _results() -> list[dict[str, Any]]:
    file = HERE / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _known(task: str, arm: str, seed: int) -> bool:
    return any((r["task"], r["arm"], r["seed"]) == (task, arm, seed) for r in _results())


def _add(row: Mapping[str, Any], scores: Sequence[float]) -> None:
    line = {**row, "date": f"{datetime.now(UTC):%Y-%m-%d}", "scores": "".join(str(int(score)) for score in scores)}
    with (HERE / "results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(row, round(sum(scores) / len(scores), 3), flush=True)


def _difference(left: Mapping[tuple[str, int], list[int]], right: Mapping[tuple[str, int], list[int]]) -> str:
    """Mean over tasks of the runs both have, with a 95 % interval: paired bootstrap over seeds and test rows."""
    shared = sorted(left.keys() & right.keys())
    blocks = [
        np.array([np.subtract(left[key], right[key]) for key in shared if key[0] == task])
        for task in dict.fromkeys(task for task, _ in shared)
    ]
    if not blocks:
        return ""
    draw = np.random.default_rng(0)
    means = []
    for _ in range(5000):
        picked = []
        for block in blocks:
            seeds, rows = draw.integers(0, len(block), len(block)), draw.integers(0, block.shape[1], block.shape[1])
            picked.append(block[seeds][:, rows].mean())
        means.append(np.mean(picked))
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{np.mean([block.mean() for block in blocks]):+.3f} [{low:+.3f}, {high:+.3f}] ({len(shared)})"


def report() -> None:
    """The table of the README."""
    arms: dict[str, dict[tuple[str, int], list[int]]] = {}
    facts: dict[str, list[dict[str, Any]]] = {}
    for row in _results():
        arms.setdefault(row["arm"], {})[row["task"], row["seed"]] = [int(x) for x in row["scores"]]
        facts.setdefault(row["arm"], []).append(row)
    print(f"| rows | {' | '.join(TASKS)} | mean | against 50 | against 600 | rows used | of them right |")
    print("|---|" + "---|" * (len(TASKS) + 5))
    for arm, runs in arms.items():
        means = [np.mean([s for (t, _), s in runs.items() if t == task]) if any(t == task for t, _ in runs) else np.nan
                 for task in TASKS]  # fmt: skip
        prefix = "from champion: " if arm.startswith("from champion") else ""
        cells = [_difference(runs, arms[prefix + other]) if arm != prefix + other and prefix + other in arms else ""
                 for other in ("50", "600")]  # fmt: skip
        labelled = [row for row in facts[arm] if "used" in row]
        used = [", ".join(str(row["used"]) for row in labelled if row["task"] == task) for task in TASKS]
        right, count = sum(row["right"] for row in labelled), sum(row["used"] for row in labelled)
        share = f"{right / count:.3f}" if count else ""
        print(f"| {arm} | {' | '.join(f'{m:.3f}' for m in means)} | {np.mean(means):.3f} | {' | '.join(cells)} | "
              f"{'; '.join(used) if labelled else ''} | {share} |")  # fmt: skip


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".lcia/method"))
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--more", action="store_true", help="also the controls, and labels by a champion")
    parser.add_argument("--report", action="store_true", help="only print the table of what was measured")
    arguments = parser.parse_args()
    if not arguments.report:
        bench = Bench(arguments.work)
        for seed in map(int, arguments.seeds.split(",")):
            for task in arguments.tasks.split(","):
                bench.run(task, seed, more=arguments.more)
    report()


if __name__ == "__main__":
    main()
