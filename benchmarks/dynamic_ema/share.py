"""DynamicEMA's share of a whole training step of the product: real model, real tuner, real rows.

Each rule tunes a parent adapter on `movie_sentiment` with two kept rows in ten; CPU time of the EMA's two calls
and of everything between two optimizer steps, in the same process, on one thread.
"""

import argparse
import statistics
import time
from itertools import pairwise
from pathlib import Path

import torch

from components.model.prompts import render
from components.model.workbench import Workbench
from components.settings import (
    AdapterSettings,
    BaseModelSettings,
    EmaSettings,
    Settings,
    StorageSettings,
    TuningSettings,
)
from components.tasks.package import read_package
from components.tuning.dynamic_ema import RULES, DynamicEMA
from components.tuning.tuner import Parent, tune

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"


def timed(seconds: list[float], method):
    def call(self, *args, **options):
        start = time.process_time()
        result = method(self, *args, **options)
        seconds.append(time.process_time() - start)
        return result

    return call


def stopwatch(ends: list[float]):
    """A progress callback that notes when each optimizer step ended."""

    def report(what, *_):
        if what == "tune":
            ends.append(time.process_time())

    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=".lcia/models", help="folder of converted base models")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--layers", default=6, type=lambda v: v if v == "all" else int(v))
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    settings = Settings(
        base_model=BaseModelSettings(device="cpu", dtype=arguments.dtype, threads=1),
        adapter=AdapterSettings(top_layers=arguments.layers),
        storage=StorageSettings(models=arguments.models),
    )
    bench = Workbench.load(settings)
    rendered = [
        [render(bench.base.tokenizer, bench.base.settings, r.instruction, r.input, r.output) for r in rows]
        for rows in (
            read_package(EXAMPLES / name).splits["train"][:count]
            for name, count in (("movie_sentiment", 48), ("grammar_check", 12))
        )
    ]
    bench.slot.initialise(1)
    adapter = bench.slot.tensors()
    parent = Parent(adapter, {name: torch.rand_like(t) for name, t in adapter.items()})
    read, update = DynamicEMA.read_gradients, DynamicEMA.update
    print("| rule | EMA ms a step | step ms | share |\n|---|---|---|---|")
    for rule in RULES:
        reads, updates, ends = [], [], []
        DynamicEMA.read_gradients = timed(reads, read)
        DynamicEMA.update = timed(updates, update)
        tuning = TuningSettings(
            steps=arguments.steps, checkpoint_every=10**6, ema=EmaSettings(rule=rule, max_fallback=1, fisher_rows=1)
        )
        tune(bench.trunk, bench.slot, *rendered, parent, tuning, None, progress=stopwatch(ends))
        step = statistics.median(b - a for a, b in pairwise(ends))
        cost = statistics.median(r + u for r, u in zip(reads, updates, strict=True))
        print(f"| {rule} | {1e3 * cost:.2f} | {1e3 * step:.0f} | {100 * cost / step:.2f} % |", flush=True)
    DynamicEMA.read_gradients, DynamicEMA.update = read, update


if __name__ == "__main__":
    main()
