"""How restless alpha of `scale_free` is on a real task, by the window of its smoothing.

Tunes `product_sentiment` from an adapter tuned on `movie_sentiment`, 60 steps each, and looks at alpha of every
tensor in every step.
"""

import argparse

import torch

from benchmarks.dynamic_ema.share import EXAMPLES
from components.model.prompts import Rendered, render
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
from components.tuning import dynamic_ema
from components.tuning.dynamic_ema import DynamicEMA
from components.tuning.tuner import Parent, TuningResult, tune

STEPS, ROWS = 60, 160


def train(bench: Workbench, name: str, parent: Parent | None) -> TuningResult:
    settings = TuningSettings(
        steps=STEPS, checkpoint_every=10**6, ema=EmaSettings(rule="scale_free", max_fallback=1, fisher_rows=1)
    )
    rows: list[Rendered] = [
        render(bench.base.tokenizer, bench.base.settings, r.instruction, r.input, r.output)
        for r in read_package(EXAMPLES / name).splits["train"][:ROWS]
    ]
    return tune(bench.trunk, bench.slot, rows, [], parent, settings, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=".lcia/models", help="folder of converted base models")
    arguments = parser.parse_args()
    settings = Settings(
        base_model=BaseModelSettings(device="cpu", dtype="bfloat16", threads=1),
        adapter=AdapterSettings(),
        storage=StorageSettings(models=arguments.models),
    )
    bench = Workbench.load(settings)
    parent = Parent(train(bench, "movie_sentiment", None).points["live"], None)
    seen: list[torch.Tensor] = []
    update = DynamicEMA.update

    def watched(self, lr, **options):
        update(self, lr, **options)
        seen.append(self._alphas.log())

    DynamicEMA.update = watched
    top = torch.tensor(3 / STEPS).log()
    print(
        "| smoothing | window | median alpha | at the upper bound | change of log alpha a step |\n|---|---|---|---|---|"
    )
    for smoothing in (0.0, 0.05, 0.1, 0.2):
        seen.clear()
        dynamic_ema.SMOOTHING["scale_free"] = smoothing
        train(bench, "product_sentiment", parent)
        alphas = torch.stack(seen[1:])
        bound, change = (alphas > top - 1e-4).float().mean(), alphas.diff(dim=0).abs().mean()
        window = max(1, round(smoothing * STEPS))
        row = f"| {smoothing:g} | {window} | {alphas.exp().median():.4f} | {100 * bound:.0f} % | {change:.3f} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
