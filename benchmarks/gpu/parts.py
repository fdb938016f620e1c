"""Parts of a run of lcia: the EMA's time on the device, the evaluator's speed, the most expensive operators."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.contest import RULE, Contest, Memory, now
from benchmarks.tuning_speed.measure import Stopwatch
from components.evaluation.prediction import Evaluator
from components.tasks.rows import Example
from components.tasks.task_file import Task
from components.tuning.dynamic_ema import DynamicEMA

OPERATORS, PROFILED_STEPS, PROFILED_TOKENS = 10, 3, 8
"""Operators shown; steps and decoded tokens profiled: torch takes minutes to sort out a million events."""


def ema_milliseconds(contest: Contest) -> float | None:
    """Median over the steps of what `read_gradients` and `update` take between two CUDA events; None on the CPU."""
    if contest.device == "cpu":
        return None
    with _events("read_gradients") as reads, _events("update") as updates:
        contest.lcia(contest.tuning(RULE), Stopwatch(now))
    torch.cuda.synchronize()
    spans = zip(reads, updates, strict=True)
    return statistics.median(sum(begin.elapsed_time(end) for begin, end in pair) for pair in spans)


@contextmanager
def _events(name: str) -> Iterator[list[tuple[torch.cuda.Event, torch.cuda.Event]]]:
    """Begin and end of each call of a method of DynamicEMA on the device's own clock."""
    method, spans = getattr(DynamicEMA, name), []

    def recorded(self: DynamicEMA, *args, **options) -> None:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        method(self, *args, **options)
        end.record()
        spans.append((begin, end))

    with patch.object(DynamicEMA, name, recorded):
        yield spans


@dataclass
class Predictions:
    """An evaluator's work on rows with the adapter that is in the slot."""

    contest: Contest
    task: Task
    rows: Sequence[Example]

    def predict(self, rows: Sequence[Example], *, scores_only: bool = False) -> float:
        """Seconds of `Evaluator.predict`, that of the trunk included; nothing is known from a call before."""
        bench = self.contest.bench
        if bench.base.sight:
            bench.base.sight.forget()
        evaluator = Evaluator(bench.trunk, bench.slot, 32)
        queries = [evaluator.query(self.task, row, "own") for row in rows]
        adapters = {"own": bench.slot.tensors()}
        start = now()
        evaluator.predict(queries, adapters, scores_only=scores_only)
        return now() - start

    def measure(self) -> dict[str, float | None]:
        """Examples a second, answers in full and scores alone, and the most device memory of the former."""
        self.predict(self.rows[:4])  # what is slow once
        memory, count = Memory(), len(self.rows)
        answers, peak = count / self.predict(self.rows), memory.peak
        scores = count / self.predict(self.rows, scores_only=True)
        return {"answers_per_second": answers, "scores_per_second": scores, "peak_bytes": peak}


def profiles(contest: Contest, predictions: Predictions) -> str:
    """Tables of the most expensive operators of a few tuning steps, and of predicting."""
    steps = min(PROFILED_STEPS, len(contest.plan))
    tuning = contest.tuning(RULE, steps=steps)
    task = predictions.task
    tokens = min(PROFILED_TOKENS, task.decoding.max_new_tokens)
    short = task.model_copy(update={"decoding": task.decoding.model_copy(update={"max_new_tokens": tokens})})
    predictions = replace(predictions, task=short)

    def tune(seen: profile) -> None:
        watch = Stopwatch(now)
        with patch.object(watch, "read", lambda _: seen.start()):  # just before the first step: the trunk is done
            contest.lcia(tuning, watch)

    def predict(seen: profile) -> None:
        seen.start()
        predictions.predict(predictions.rows)

    return "\n\n".join(
        f"{title}\n{_table(run, contest.device)}"
        for title, run in (
            (f"{steps} tuning steps, rule {RULE}", tune),
            (f"predicting {len(predictions.rows)} rows, up to {tokens} tokens", predict),
        )
    )


def _table(run: Callable[[profile], None], device: str) -> str:
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    trace = profile(activities=kinds)
    run(trace)
    now()
    trace.stop()
    # operators alone: kernels have rows of their own, whose time their operators' rows hold already
    every = [event for event in trace.key_averages() if event.device_type == DeviceType.CPU]
    field = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    total = sum(getattr(event, field) for event in every)
    if not total:
        return f"no {field} was recorded; may this user read the device's counters (CUPTI)?"
    lines = [f"{'operator':64s} {'self ms':>10s} {'share':>6s} {'calls':>8s}   ({field})"]
    for event in sorted(every, key=lambda event: -getattr(event, field))[:OPERATORS]:
        time = getattr(event, field)
        lines.append(f"{event.key[:64]:64s} {time / 1e3:10.2f} {time / total:6.1%} {event.count:8d}")
    return "\n".join([*lines, f"{'all operators':64s} {total / 1e3:10.2f}"])
