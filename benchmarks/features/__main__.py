"""What each way to save memory, and a second process, costs and gains on the CPU, with the embedded model.

    PYTHONWARNINGS=ignore python -m benchmarks.features [--steps 6] [--rows 16] [--layers all]

Each variant tunes the same rows in a process of its own on one thread: seconds of a step (median after the first), and
the most memory that the process took beyond what it had once the model was loaded. One variant after the other.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
VARIANTS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "rows_per_pass 1": ("tuning.rows_per_pass=1",),
    "gradient_checkpointing": ("tuning.gradient_checkpointing=true",),
    "bfloat16": ("base_model.dtype=bfloat16",),
    "nf4": ("base_model.quantization=nf4",),
    "2 processes": ("base_model.processes=2",),
    "2 processes, sharded": ("base_model.processes=2", "base_model.sharded=true"),
}


def main() -> None:
    """Print a table, each variant beside the first."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--steps", type=int, default=6)
    asked.add_argument("--rows", type=int, default=16, help="rows of a step")
    asked.add_argument("--layers", default="all", help="adapter.top_layers")
    asked.add_argument("--task", default="passive_voice")
    asked.add_argument("--quick", action="store_true", help="three steps of two rows on the last two layers")
    asked.add_argument("--variant", choices=list(VARIANTS), help="measure this one alone, and print JSON")
    told = asked.parse_args()
    if told.quick:
        told.steps, told.rows, told.layers = 3, 2, "2"
    if told.variant:
        made = measure(told.task, told.steps, told.rows, told.layers, VARIANTS[told.variant])
        if made:
            print(json.dumps(made))
        return
    first: dict[str, float] | None = None
    ratios: dict[str, float] = {}
    print("| | seconds a step | ratio | memory of tuning, MB | ratio | model in memory, MB | loss |")
    print("|---|---|---|---|---|---|---|")
    for name, overrides in VARIANTS.items():
        made = _in_a_process(name, overrides, told)
        first = first or made
        seconds, memory = made["seconds"] / first["seconds"], made["tuning_mb"] / first["tuning_mb"]
        print(
            f"| {name} | {made['seconds']:.2f} | {seconds:.2f} | {made['tuning_mb']:.0f} | {memory:.2f} | "
            f"{made['loaded_mb']:.0f} | {made['loss']:.4f} |",
            flush=True,
        )
        ratios |= {f"{name}, seconds": round(seconds, 2), f"{name}, memory": round(memory, 2)}
    print(json.dumps(ratios))


def _in_a_process(name: str, overrides: tuple[str, ...], told: argparse.Namespace) -> dict[str, float]:
    own = ["--variant", name, "--steps", told.steps, "--rows", told.rows, "--layers", told.layers, "--task", told.task]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--module"]
    started = several if any("processes" in key for key in overrides) else ["-m"]
    command = [sys.executable, *started, "benchmarks.features", *map(str, own)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    made: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return made


def measure(task: str, steps: int, rows: int, layers: str, overrides: tuple[str, ...]) -> dict[str, float] | None:
    """Seconds and memory of this process, None in one that is not the first."""
    import torch

    from components.model.prompts import render
    from components.model.ranks import Ranks
    from components.model.workbench import Workbench
    from components.settings import load_settings
    from components.tasks.package import read_package
    from components.tuning.tuner import tune

    torch.set_num_threads(1)
    basis = [f"tuning.steps={steps}", f"tuning.batch_size={rows}", f"adapter.top_layers={layers}"]
    basis += ["base_model.device=cpu", "base_model.threads=1", "tuning.ema.fisher_rows=1"]
    settings = load_settings(ROOT / "zenml.yaml", [*basis, *overrides], {})
    ranks = Ranks.join("cpu")
    bench = Workbench.load(settings, ranks=ranks)
    examples = read_package(ROOT / "examples" / "tasks" / task).splits["train"][: 2 * rows]
    texts = [render(bench.base.reader, settings.base_model, e.instruction, e.input, e.output) for e in examples]
    Path("/proc/self/clear_refs").write_text("5")  # what loading took at most is forgotten
    loaded, clock = _megabytes("VmRSS"), [time.perf_counter()]

    def count(what: str, *_: Any) -> None:
        if what == "tune":
            clock.append(time.perf_counter())

    made = tune(bench.trunk, bench.slot, texts, [], None, settings.tuning, None, progress=count)
    seconds = [b - a for a, b in pairwise(clock[1:])]
    ranks.leave()
    if not ranks.first:
        return None
    return {
        "seconds": statistics.median(seconds),
        "tuning_mb": _megabytes("VmHWM") - loaded,
        "loaded_mb": loaded,
        "loss": made.losses[-1],
    }


def _megabytes(what: str) -> float:
    """Memory of this process, now (`VmRSS`) or at most (`VmHWM`); Linux only."""
    kib = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return float(kib.split()[1]) / 1024


if __name__ == "__main__":
    main()
