"""Cost of one step of DynamicEMA, beside the same rule as a loop over tensors with copies and `.item()`.

The loop is written from the description of the authors' published code: it copies the live weights and
gradients of the model every step, walks over the tensors, takes three norms each and fetches them to the host.
All variants run interleaved in one process on one thread; minimum and median over the repeats.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from components.tuning.dynamic_ema import RULES, DynamicEMA

HIDDEN, FEED_FORWARD, KEY_VALUE = 576, 1536, 192  # SmolLM2-135M
ATTENTION = [(HIDDEN, HIDDEN), (HIDDEN, KEY_VALUE), (HIDDEN, KEY_VALUE), (HIDDEN, HIDDEN)]
MODULES = [*ATTENTION, (HIDDEN, FEED_FORWARD), (HIDDEN, FEED_FORWARD), (FEED_FORWARD, HIDDEN)]
"""(in, out) of the seven linear maps of a layer."""


class LoopEMA:
    """The published rule per tensor, as published: deep copies, one host value per norm."""

    def __init__(self, live: list[Tensor]) -> None:
        self.live = live
        self.average = copy.deepcopy([p.detach() for p in live])
        self.previous = [torch.zeros_like(p) for p in self.average]
        self.present = self.previous

    def read_gradients(self) -> None:
        self.present = copy.deepcopy([p.grad for p in self.live])

    @torch.no_grad()
    def update(self) -> None:
        live = copy.deepcopy([p.detach() for p in self.live])
        for i, p in enumerate(live):
            distance = torch.norm(p - self.average[i], p=1).item()
            gradient = torch.norm(self.present[i], p=1).item()
            change = torch.norm(self.present[i] - self.previous[i], p=1).item()
            alpha = 2 * (1 + gradient) / (distance * change) if distance * change else 0.0
            if not 0 < alpha < 1:
                alpha = 0.01
            self.average[i] = (1 - alpha) * self.average[i] + alpha * p
        self.previous = self.present


def adapter(layers: int, rank: int, seed: int = 0) -> list[Tensor]:
    """LoRA tensors of SmolLM2-135M's last layers: A (rank, in) and B (out, rank) of seven modules each."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [s for _ in range(layers) for n, m in MODULES for s in ((rank, n), (m, rank))]
    live = [(torch.randn(s, generator=draw) * 0.02).requires_grad_() for s in shapes]
    for p in live:
        p.grad = torch.randn(p.shape, generator=draw) * 1e-3
    return live


def measure(layers: int, rank: int, repeats: int) -> dict[str, list[float]]:
    """Seconds per step by variant; the optimizer step itself is not in them, `AdamW` is there to compare."""
    steps: dict[str, Callable[[], None]] = {}
    for rule in RULES:
        live = adapter(layers, rank)
        weights = [torch.rand_like(p) for p in live] if rule == "curvature" else None
        ema = DynamicEMA(live, rule, steps=repeats, peak_lr=1e-3, importance=weights)
        steps[rule] = lambda ema=ema: (ema.read_gradients(), ema.update(1e-3))
    loop = LoopEMA(adapter(layers, rank))
    steps["loop with copies"] = lambda: (loop.read_gradients(), loop.update())
    optimizer = torch.optim.AdamW(adapter(layers, rank), lr=1e-3, foreach=True)
    steps["AdamW"] = optimizer.step
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 5):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat >= 5:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="ten repeats")
    arguments = parser.parse_args()
    headline = {}
    torch.set_num_threads(1)
    for title, layers, rank in (
        ("last 6 layers, r = 8", 6, 8),
        ("all 30 layers, r = 8", 30, 8),
        ("all, r = 64", 30, 64),
    ):
        live = adapter(layers, rank)
        print(f"\n{title}: {len(live)} tensors, {sum(p.numel() for p in live) / 1e6:.2f} M weights\n")
        print("| variant | min ms | median ms | loop / this, min | loop / this, median |\n|---|---|---|---|---|")
        seconds = measure(layers, rank, 10 if arguments.quick else arguments.repeats)
        loop = seconds["loop with copies"]
        for name, values in seconds.items():
            low, median = min(values), statistics.median(values)
            ratios = f"{min(loop) / low:.1f} | {statistics.median(loop) / median:.1f}"
            headline.setdefault(name, {})[title] = round(statistics.median(loop) / median, 1)
            print(f"| {name} | {1e3 * low:.2f} | {1e3 * median:.2f} | {ratios} |")
    print(json.dumps({"loop_over_this": headline}))


if __name__ == "__main__":
    main()
