"""Tuning and evaluation on one GPU, next to a plain loop and TRL's SFTTrainer: tokens a second, memory, time.

The same program runs on the CPU with `--shape tiny`; numbers that only CUDA has are null there. The report is written
anew after each part, so an interrupted run keeps what it has measured.
"""

import argparse
import json
import os
import re
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers.utils import logging as transformers_logging

from benchmarks.gpu.contest import CHECKPOINTING, LCIA, PLAIN, RULE, Contest, Timed
from benchmarks.gpu.parts import Predictions, ema_milliseconds, profiles
from benchmarks.gpu.shapes import EXAMPLES, SHAPES, examples, release, saved
from benchmarks.tuning_speed.measure import SFT, SFT_DEFAULTS

PEAKS = {r"H[12]00(?!.*(PCIe|NVL|MIG))": 989e12, r"A100(?!.*MIG)": 312e12}
"""Dense bfloat16 FLOPs a second by the device's name (vendor's data sheets, SXM)."""
TASKS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
COMPETITORS = (LCIA, f"{LCIA}, {RULE}", f"{LCIA}{CHECKPOINTING}", f"{LCIA}, {RULE}{CHECKPOINTING}", PLAIN)
COMPETITORS = (*COMPETITORS, PLAIN + CHECKPOINTING, SFT, SFT_DEFAULTS)


class Report:
    """Results so far, in a file that is always whole, and the profiles in a text beside it."""

    def __init__(self, file: Path, facts: dict) -> None:
        self.file, self.content = file, {**facts, "top_layers": {}}
        self.profiles: list[str] = []
        file.parent.mkdir(parents=True, exist_ok=True)

    def write(self) -> None:
        """Replace both."""
        texts = {self.file: json.dumps(self.content, indent=1) + "\n"}
        texts[self.file.with_suffix(".profile.txt")] = "\n\n".join(self.profiles) + "\n"
        for file, text in texts.items():
            part = file.with_name(f".{file.name}.part")
            part.write_text(text, encoding="utf-8")
            part.replace(file)


def peak_flops(name: str | None, override: float | None) -> float | None:
    """FLOPs a second of the device, None where it is not in the table and not given."""
    if override is not None:
        return 1e12 * override
    return next((peak for pattern, peak in PEAKS.items() if name and re.search(pattern, name)), None)


def measure(contest: Contest, predictions: Predictions, report: Report, top: int | str, *, trl: bool) -> None:
    """Fill the report part by part."""
    results = report.content["top_layers"][str(top)] = {}
    parameters, adapted = sum(contest.layer_parameters), contest.layer_parameters[contest.bench.slot.first_layer :]
    flops = 2 * parameters + 2 * sum(adapted)
    results |= {
        "layer_parameters": parameters,
        "adapted_layer_parameters": sum(adapted),
        "flops_per_token": flops,
        "trunk_split": contest.bench.trunk.split,
        "tokens": contest.tokens,
        "positions": contest.positions,
        "tuning": dict.fromkeys(COMPETITORS),
        "ratios": {},
        "ema": None,
        "evaluation": None,
    }
    peak = report.content["peak_flops"]

    def note(name: str, timed: Timed) -> None:
        seconds = sum(timed.steps)
        whole = contest.tokens / (seconds + (timed.before if name.startswith(LCIA) else 0))
        results["tuning"][name] = {
            "step_ms": 1e3 * seconds / len(timed.steps),
            "before_first_step_s": timed.before,
            "tokens_per_second": contest.tokens / seconds,
            "tokens_per_second_with_trunk": whole,
            "share_of_bound": whole * flops / peak if peak else None,
            "peak_bytes": timed.peak,
            "first_loss": timed.loss,
        }
        results["ratios"] = _ratios(results["tuning"])
        report.write()
        print(f"  {name:36s} {1e3 * seconds / len(timed.steps):9.1f} ms a step {whole:10.0f} tokens/s", flush=True)

    for checkpointing in (False, True):
        for rule, words in (("none", LCIA), (RULE, f"{LCIA}, {RULE}")):
            name = words + CHECKPOINTING * checkpointing
            note(name, contest.run_lcia(rule, checkpointing=checkpointing))
    results["ema"] = _ema(results["tuning"], ema_milliseconds(contest))
    results["evaluation"] = predictions.measure()
    report.profiles.append(f"adapters on {top} layers: {profiles(contest, predictions)}")
    report.write()
    for checkpointing in (False, True):
        note(PLAIN + CHECKPOINTING * checkpointing, contest.run_plain(checkpointing=checkpointing))
    if trl:
        for name, timed in contest.run_sft().items():
            note(name, timed)


def _ema(tuning: dict, milliseconds: float | None) -> dict:
    """The EMA's share of a step, from two runs and from the device's own clock."""
    without, with_rule = (tuning[name]["step_ms"] for name in (LCIA, f"{LCIA}, {RULE}"))
    return {
        "rule": RULE,
        "share_by_difference": 1 - without / with_rule,
        "events_ms": milliseconds,
        "share_by_events": milliseconds / with_rule if milliseconds is not None else None,
    }


def _ratios(tuning: dict) -> dict[str, float]:
    """Tokens a second of lcia over those of each competitor, the trunk's time included; like with like."""
    pairs = [(LCIA, PLAIN), (LCIA + CHECKPOINTING, PLAIN + CHECKPOINTING)]
    pairs += [(LCIA, SFT), (LCIA + CHECKPOINTING, SFT_DEFAULTS)]
    rate = "tokens_per_second_with_trunk"
    return {
        f"{own} / {other}": tuning[own][rate] / tuning[other][rate]
        for own, other in pairs
        if tuning[own] and tuning[other]
    }


def read_arguments() -> argparse.Namespace:
    """The command line, refused where it can't be run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="1.5b", choices=list(SHAPES))
    parser.add_argument("--steps", type=int, help="optimizer steps of each run; the shape says how many otherwise")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each; of every step the least time counts")
    parser.add_argument("--batch", type=int, help="rows a step, likewise")
    parser.add_argument(
        "--task", default="passive_voice", choices=TASKS, help="an example task, for shapes that read text"
    )
    parser.add_argument("--predict", type=int, help="rows to predict, likewise")
    parser.add_argument("--peak-tflops", type=float, help="dense bfloat16 peak of a device that is not in the table")
    parser.add_argument("--work", type=Path, default=Path("build/gpu"), help="folder of the weights, up to 14 GB each")
    parser.add_argument("--out", type=Path, help="the report; profiles go beside it (default: WORK/SHAPE.json)")
    parser.add_argument("--without-trl", action="store_true")
    parser.add_argument("--quick", action="store_true", help="--shape tiny --without-trl")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.without_trl = "tiny", True
    for name in ("steps", "rounds", "batch", "predict", "peak_tflops"):
        value = getattr(arguments, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} is {value}, expected more than 0")
    if not torch.cuda.is_available() and not arguments.shape.startswith("tiny"):
        parser.error(f"--shape {arguments.shape} needs a GPU, and torch sees none; --shape tiny runs on the CPU")
    return arguments


def main() -> None:
    """See above."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one GPU: with several the Trainer would take them all
    told = read_arguments()
    warnings.filterwarnings("ignore")
    transformers_logging.disable_progress_bar()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    if not told.without_trl:
        from benchmarks.tuning_speed.sft import VERSIONS

        versions += f", {VERSIONS}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    shape = SHAPES[told.shape]()
    out = told.out or told.work / f"{told.shape}.json"
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "shape": told.shape,
        "task": None if shape.side else told.task,
        "gpu": gpu,
        "peak_flops": peak_flops(gpu, told.peak_tflops),
        "versions": versions,
        "steps": told.steps or shape.steps,
        "batch": told.batch or shape.batch,
    }
    print(json.dumps(facts), flush=True)
    report = Report(out, facts)
    folder = saved(told.shape, shape, told.work.absolute(), "cuda" if gpu else "cpu")
    rows = (facts["steps"] * facts["batch"], told.predict or shape.predict)
    task, train, test = examples(shape, told.task, *rows)
    for top in shape.tops:
        print(f"adapters on {top} layers", flush=True)
        contest = Contest(shape, folder, top, train, told)
        measure(contest, Predictions(contest, task, test), report, top, trl=not told.without_trl)
        del contest
        release()
    print(json.dumps({top: found["ratios"] for top, found in report.content["top_layers"].items()}))


if __name__ == "__main__":
    main()
