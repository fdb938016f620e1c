"""CPU seconds of a tuning step: lcia, lcia with its ingredients switched off, and TRL's SFTTrainer.

Same rows in the same order, same start, same LoRA, optimizer and schedule; batches of four, one thread, no rehearsal,
no EMA. All variants alternate in one process for `--rounds` rounds; of each step the least CPU time over the rounds
counts, and the mean over the steps is printed. Their losses are compared first: a variant that computes something
else ends the run.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

from benchmarks.tuning_speed.variants import SwitchedTrunk, padded_lower_pass
from components.model.packing import packs
from components.model.prompts import Rendered, render
from components.model.trunk import Trunk
from components.model.workbench import Workbench
from components.settings import BaseModelSettings, EmaSettings, Settings, StorageSettings, TuningSettings, length
from components.tasks.package import read_package
from components.tuning import tuner
from components.tuning.early_stopping import EarlyStopping
from components.tuning.rehearsal import batches, select_rows
from components.tuning.run import Run

EXAMPLES = Path(__file__).parents[2] / "examples" / "tasks"
LCIA = "lcia"
ROWS = 240
"""Training rows drawn from a task."""

INGREDIENTS = {
    "no trunk cache": {"cached": False},
    "logits everywhere": {"answers_only": False},
    "padded batch": {"tree": False},
    "all three off": {"cached": False, "answers_only": False, "tree": False},
}
BUCKETED = ("padded batch", "all three off")
SFT, SFT_DEFAULTS = "SFTTrainer", "SFTTrainer, checkpointing"
PLAIN = EmaSettings(rule="none", fisher_rows=1)
Batches = list[list[Rendered]]


class Stopwatch:
    """A checkpoint area that keeps nothing and notes when the first step began; a progress callback besides."""

    def __init__(self, now: Callable[[], float] = time.process_time) -> None:
        self.now = now
        self.seconds: list[float] = []

    def read(self, _name) -> None:
        self.seconds.append(self.now())

    def write(self, _name, _data) -> None:
        pass

    def report(self, what: str, *_) -> None:
        if what == "tune":
            self.seconds.append(self.now())


class Contest:
    """All competitors on one base model and number type."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.settings = Settings(
            base_model=BaseModelSettings(device="cpu", dtype=arguments.dtype, threads=1),
            storage=StorageSettings(models=arguments.models),
        )
        if not arguments.without_trl:
            from benchmarks.tuning_speed.sft import VERSIONS, Baseline

            print(f"{VERSIONS}, torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
        self.bench = Workbench.load(self.settings, print)
        base, slot = self.bench.base, self.bench.slot
        self.trunks: dict[str, Trunk] = {LCIA: self.bench.trunk}
        if arguments.ingredients:
            self.trunks |= {name: SwitchedTrunk(base, slot, **off) for name, off in INGREDIENTS.items()}
        self.baselines = {}
        if not arguments.without_trl:
            folder, dtype, lora = Path(arguments.models) / base.digest, arguments.dtype, slot.config
            self.baselines[SFT] = Baseline(folder, dtype, lora)
            if arguments.ingredients:
                self.baselines[SFT_DEFAULTS] = Baseline(folder, dtype, lora, checkpointing=True)

    def rows(self, task: str) -> list[Rendered]:
        """The 240 training rows the product would use."""
        train = read_package(EXAMPLES / task).splits["train"]
        indices = select_rows(len(train), ROWS, 0)
        base = self.bench.base
        return [
            render(base.tokenizer, base.settings, r.instruction, r.input, r.output) for r in (train[i] for i in indices)
        ]

    def tuning(self, steps: int, ema: EmaSettings = PLAIN) -> TuningSettings:
        return TuningSettings(steps=steps, batch_size=4, checkpoint_every=10**6, ema=ema)

    def lcia(
        self, trunk: Trunk, rows: list[Rendered], steps: int, ema: EmaSettings = PLAIN
    ) -> tuple[list[float], list[float]]:
        """Losses, and CPU seconds at the begin and the end of each step."""
        watch, tuning = Stopwatch(), self.tuning(steps, ema)
        result = tuner.tune(trunk, self.bench.slot, rows, [], None, tuning, watch, progress=watch.report)
        return result.losses, watch.seconds

    def sft(self, name: str, plan: Batches) -> tuple[list[float], list[float]]:
        """The same by SFTTrainer."""
        self.bench.slot.initialise(0)
        tuning = self.tuning(len(plan))
        whole = EarlyStopping(length(ROWS, tuning), 0)
        schedule = Run(self.bench.trunk, self.bench.slot, [], {}, None, tuning, whole).learning_rate
        run = self.baselines[name].train(plan, self.bench.slot.tensors(), tuning, schedule)
        return run.losses, run.clock


def token_mean(bench: Workbench, batch: list[Rendered]) -> float:
    """SFTTrainer's loss before the first step: the mean over answer tokens, not over rows."""
    bench.slot.initialise(0)
    states = bench.trunk.states([row.tokens for row in batch], len(batch))
    with torch.no_grad():
        logits = torch.cat(bench.trunk.answer_logits(states, [len(row.prompt) for row in batch]))
    answers = torch.tensor([t for row in batch for t in row.answer], device=logits.device)
    return float(torch.nn.functional.cross_entropy(logits, answers))


def steps_of(contest: Contest, task: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Print seconds per step of every competitor on one task; returns each one's ratio to lcia's."""
    rows, steps = contest.rows(task), arguments.steps
    order = batches(len(rows), [], steps, 4, 0)
    by_length = sorted((i for batch in order for i in batch), key=lambda i: len(rows[i].tokens))
    bucketed = [by_length[k : k + 4] for k in range(0, len(by_length), 4)]
    plan = [[rows[i] for i in batch] for batch in order]
    best: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        runs = {name: contest.lcia(trunk, rows, steps) for name, trunk in contest.trunks.items()}
        runs |= {name: contest.sft(name, plan) for name in contest.baselines}
        if arguments.ingredients:
            with patch.object(tuner, "batches", lambda *_: bucketed):
                for name in BUCKETED:
                    runs[f"{name}, by length"] = contest.lcia(contest.trunks[name], rows, steps)
        for name, (loss, clock) in runs.items():
            seconds = [b - a for a, b in pairwise(clock)]
            best[name] = [min(pair) for pair in zip(best.get(name, seconds), seconds, strict=True)]
            losses.setdefault(name, loss)
    _print_tokens(task, plan, [[rows[i] for i in batch] for batch in bucketed])
    same_length = all(len({len(row.answer) for row in batch}) == 1 for batch in plan)
    own = sum(best[LCIA]) / steps
    for name, seconds in best.items():
        mean = sum(seconds) / steps
        words = f"{task:18s} {name:28s} {1e3 * mean:7.0f} ms  {mean / own:5.2f}"
        print(f"{words}  {_agreement(contest, name, losses, plan[0], same_length, arguments)}", flush=True)
    return {name: round(sum(seconds) / steps / own, 2) for name, seconds in best.items()}


def _print_tokens(task: str, plan: Batches, bucketed: Batches) -> None:
    def padded(given: Batches) -> float:
        return sum(len(b) * max(len(r.tokens) for r in b) for b in given) / len(given)

    tree = sum(len(pack.tokens) for b in plan for pack in packs([r.tokens for r in b])) / len(plan)
    flat = sum(len(r.tokens) for b in plan for r in b) / len(plan)
    answers = sum(len(r.answer) for b in plan for r in b) / len(plan)
    print(
        f"{task:18s} positions a step: prefix tree {tree:.0f}, rows {flat:.0f}, padded {padded(plan):.0f}, "
        f"padded by length {padded(bucketed):.0f}; answer tokens {answers:.0f}"
    )


def _agreement(contest, name, losses, first, same_length, arguments) -> str:
    if "by length" in name:
        return "other batches"
    if name in contest.baselines:
        gaps = [abs(token_mean(contest.bench, first) - losses[name][0])]
        words = "first loss differs by"
        if same_length:  # then the mean over tokens is the mean over rows
            gaps += [abs(a - b) for a, b in zip(losses[LCIA], losses[name], strict=True)]
            words = "losses of all steps differ by at most"
    else:
        gaps = [abs(a - b) for a, b in zip(losses[LCIA], losses[name], strict=True)]
        words = "losses of all steps differ by at most"
    if not max(gaps) <= arguments.tolerance:
        raise SystemExit(f"{name} computes something else: its losses are {losses[name]}, lcia's {losses[LCIA]}")
    return f"{words} {max(gaps):.1e}"


def trunk_of(contest: Contest, task: str, rounds: int) -> None:
    """Print the CPU seconds of computing the trunk's states once for 240 rows."""
    rows = [row.tokens for row in contest.rows(task)]
    trunk = contest.bench.trunk
    ways = {
        "prefix trees (lcia)": lambda: trunk.states(rows, 32),
        "padded, rows in order": lambda: padded_lower_pass(trunk, rows, 32),
        "padded, by length": lambda: padded_lower_pass(trunk, sorted(rows, key=len), 32),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, compute in ways.items():
            start = time.process_time()
            compute()
            best[name] = min(best[name], time.process_time() - start)
    print(f"{task:18s} trunk of {len(rows)} rows: " + ", ".join(f"{n} {s:.1f} s" for n, s in best.items()), flush=True)


def whole_runs(contest: Contest, task: str, steps: int) -> None:
    """Print CPU seconds from rendered rows to the tuned adapter: the trunk or the Trainer's own set-up included."""
    rows = contest.rows(task)
    plan = [[rows[i] for i in batch] for batch in batches(len(rows), [], steps, 4, 0)]
    runs = {LCIA: lambda: contest.lcia(contest.bench.trunk, rows, steps)}
    runs |= {name: lambda name=name: contest.sft(name, plan) for name in contest.baselines}
    runs["lcia, curvature"] = lambda: contest.lcia(contest.bench.trunk, rows, steps, EmaSettings(rule="curvature"))
    for name, run in runs.items():
        start = time.process_time()
        _, clock = run()
        total = time.process_time() - start
        marks = ", ".join(f"{k} steps {clock[k] - start:.1f} s" for k in (steps // 2, steps))
        print(
            f"{task:18s} {name:16s} first step begins {clock[0] - start:.1f} s, {marks}, all {total:.1f} s", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=".lcia/models", help="folder of converted base models")
    parser.add_argument("--tasks", default="all", help="names from examples/tasks, separated by commas")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest difference of two losses")
    parser.add_argument("--ingredients", action="store_true", help="also lcia with its ingredients switched off")
    parser.add_argument("--trunk", action="store_true", help="measure only the trunk's states")
    parser.add_argument("--whole", type=int, metavar="STEPS", help="measure only whole runs of STEPS steps")
    parser.add_argument("--without-trl", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one task, one round, without TRL")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.tasks, arguments.rounds, arguments.without_trl = "movie_sentiment", 1, True
    ratios = {}
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    contest = Contest(arguments)
    tasks = sorted(p.name for p in EXAMPLES.iterdir() if p.is_dir()) if arguments.tasks == "all" else None
    for task in tasks or arguments.tasks.split(","):
        if arguments.whole:
            whole_runs(contest, task, arguments.whole)
        elif arguments.trunk:
            trunk_of(contest, task, arguments.rounds)
        else:
            ratios[task] = steps_of(contest, task, arguments)
    print(json.dumps({"seconds_per_step_over_lcia": ratios}))


if __name__ == "__main__":
    main()
