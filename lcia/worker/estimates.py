"""Costs of learning a task: an estimate from earlier runs of this installation, and a measurement.

A run's work is known before it starts: rows read and predictions; early stopping may make it less. Stated default
speeds turn it into seconds, and the median ratio of actual to default over like runs corrects them: a ratio estimator,
which one run already improves.
Costs stand beside a version, never in it: its digest does not depend on how fast a machine is.
"""

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from components.settings import PriceSettings, Settings
from components.storage.objects import ObjectMissing
from components.tasks import queue
from lcia.instance import Instance

SECONDS_PER_VISIT, SECONDS_PER_LAYER = 0.035, 0.0042
SECONDS_PER_ROW = 0.05
SECONDS_PER_PREDICTION = 0.08
SECONDS_AROUND = 20.0
"""Default speeds, measured on the embedded 135M model with two CPU cores: a row read with gradients, and more for each
adapted layer (on 6, 12, 30 layers 1 : 1.4 : 2.7); a row's pass through the layers below; a prediction; all else in a
run."""
EMBEDDED_LAYERS = {"all": 30, "auto": 12}
"""Layers that a setting in words adapts on that model."""
OLD_BATCH = 4
"""Rows of a step in records that do not count the rows read."""
CORES = 2.0
"""Cores that such a run keeps busy, until a run has been measured."""
PAST_RUNS = 20
"""Number of like runs, the newest ones, that the correction rests on."""


@dataclass
class Stopwatch:
    """Time of one run: `seconds` by the clock, `cpu_seconds` of this process with all its threads."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


@contextmanager
def measure() -> Iterator[Stopwatch]:
    """Measure the block; steps that run on other machines count only by the clock."""
    watch, began, cpu = Stopwatch(), time.monotonic(), time.process_time()
    try:
        yield watch
    finally:
        watch.seconds, watch.cpu_seconds = time.monotonic() - began, time.process_time() - cpu


def estimate(instance: Instance, work: Mapping[str, int]) -> dict[str, Any]:
    """Seconds, hours and money that `work` (rows read, predictions) will take, and the basis of the estimate."""
    layers = _layers(instance.settings)
    plain = default_seconds(work, layers)
    past = _past(instance)
    if past:
        factor = statistics.median(run["actual"]["seconds"] / default_seconds(run["work"], layers) for run in past)
        cores = statistics.median(run["actual"]["cpu_hours"] * 3600 / run["actual"]["seconds"] for run in past)
        basis = f"{len(past)} earlier run{'s' if len(past) > 1 else ''} here"
    else:
        factor, cores = 1.0, CORES
        basis = "a stated default, the embedded 135M model on two CPU cores: no like run was measured here yet"
    seconds = factor * plain
    return {**_costs(instance.settings, seconds, seconds * cores), "basis": basis}


def default_seconds(work: Mapping[str, int], layers: int) -> float:
    """Seconds at the stated default speeds with `layers` adapted layers; always positive.

    Records of earlier releases have steps in place of the rows read.
    """
    visits = work.get("row_visits", OLD_BATCH * work["steps"])
    learning = SECONDS_PER_ROW * work["training_rows"] + (SECONDS_PER_VISIT + SECONDS_PER_LAYER * layers) * visits
    return SECONDS_AROUND + learning + SECONDS_PER_PREDICTION * work["predictions"]


def _layers(settings: Settings) -> int:
    """Adapted layers; those of the embedded model where the settings name no number, as no model is loaded here."""
    layers = settings.adapter.top_layers
    return layers if isinstance(layers, int) else EMBEDDED_LAYERS[layers]


def record(
    instance: Instance, work: Mapping[str, int], forecast: Mapping[str, Any], watch: Stopwatch, *, partial: bool
) -> str:
    """Store estimate against actual of one run; returns the digest.

    A partial run, which went on from a checkpoint, counts in no later estimate.
    """
    return instance.store.put_json(
        {
            "kind": "cost",
            "schema": 1,
            "work": dict(work),
            "estimate": dict(forecast),
            "actual": _costs(instance.settings, watch.seconds, watch.cpu_seconds),
            "like": _like(instance.settings),
            "resumed": partial,
        }
    )


def _past(instance: Instance) -> list[dict[str, Any]]:
    """Cost records of the newest whole runs with the same model, GPUs and adapter depth."""
    with instance.db.read() as connection:
        items = queue.items(connection, instance.assistant)
    runs: list[dict[str, Any]] = []
    like = _like(instance.settings)
    for item in reversed(items):
        if len(runs) == PAST_RUNS:
            break
        if "cost" in item.reports:
            try:
                run = instance.store.get_json(item.reports["cost"])
            except ObjectMissing:
                continue
            if run["like"] == like and not run["resumed"] and run["actual"]["seconds"] > 0:
                runs.append(run)
    return runs


def _like(settings: Settings) -> dict[str, Any]:
    """Settings that two runs must share for their speeds to be compared."""
    base = settings.base_model
    layers = settings.adapter.top_layers
    return {"base_model": base.name, "dtype": base.dtype, "gpus": gpus(settings), "top_layers": layers}


def gpus(settings: Settings) -> int:
    """Number of GPUs that a run keeps busy; if steps are pods, as many as `tune` asks for."""
    base = settings.base_model
    if base.device == "cpu":
        return 0
    if settings.cluster is not None:
        pod = settings.cluster.pod("tune")
        return pod.gpu * pod.nodes
    import torch

    count = torch.cuda.device_count()
    return count if base.processes == "auto" else min(count, base.processes)


def _costs(settings: Settings, seconds: float, cpu_seconds: float) -> dict[str, Any]:
    cpu_hours, gpu_hours = cpu_seconds / 3600, seconds / 3600 * gpus(settings)
    return {
        "seconds": round(seconds, 1),
        "cpu_hours": round(cpu_hours, 5),
        "gpu_hours": round(gpu_hours, 5),
        "money": money(settings.prices, cpu_hours, gpu_hours),
        "currency": settings.prices.currency,
    }


def money(prices: PriceSettings, cpu_hours: float, gpu_hours: float) -> float | None:
    """Price of the hours; None if zenml.yaml names no price."""
    if prices.cpu_hour is None and prices.gpu_hour is None:
        return None
    return round((prices.cpu_hour or 0.0) * cpu_hours + (prices.gpu_hour or 0.0) * gpu_hours, 4)
