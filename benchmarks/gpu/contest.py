"""The competitors on one base model: lcia's tuner, a plain loop of torch over PEFT's model, TRL's SFTTrainer.

Same rows in the same order, same start, same LoRA, optimizer, clipping and schedule. The clock waits for the device at
the begin and the end of each step, for all of them alike. Making pixels of images belongs to a step, tokenising does
not.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.shapes import Shape, release
from benchmarks.tuning_speed.measure import SFT, SFT_DEFAULTS, Batches, Stopwatch, token_mean
from components.model.adapters import AdapterSlot
from components.model.base import load_base
from components.model.packing import packs
from components.model.prompts import Rendered, render
from components.model.reader import ImageReader, on_device
from components.model.trunk import Trunk
from components.model.workbench import Workbench
from components.settings import AdapterSettings, BaseModelSettings, EmaSettings, TuningSettings, length
from components.tasks.rows import Example
from components.tuning import tuner
from components.tuning.early_stopping import EarlyStopping
from components.tuning.rehearsal import batches
from components.tuning.run import Run
from components.tuning.tuner import Parent

LCIA, PLAIN, RULE = "lcia", "plain loop", "scale_free"
CHECKPOINTING = ", checkpointing"
TOLERANCE = 0.02
"""Largest relative difference of two first losses; bfloat16 has eight bits."""


def now() -> float:
    """Seconds, once the device has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Memory:
    """Device memory from here on."""

    def __init__(self) -> None:
        release()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    @property
    def peak(self) -> int | None:
        """Most bytes allocated at a time, weights included; None on the CPU."""
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


@dataclass(frozen=True)
class Timed:
    """Seconds before the first step and of each step, the first loss, and the most device memory (None on the CPU)."""

    before: float
    steps: list[float]
    loss: float
    peak: int | None


class Contest:
    """One base model with adapters on its `top` layers, and the rows it is tuned on."""

    def __init__(self, shape: Shape, folder: Path, top: int | str, rows: Sequence[Example], told: Any) -> None:
        self.shape, self.folder, self.rounds = shape, folder, told.rounds
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        settings = BaseModelSettings(
            name=str(folder), device=self.device, dtype="bfloat16", max_tokens=shape.max_tokens
        )
        base = load_base(settings, folder.parent)
        self.reader = base.reader
        self.layer_parameters = [
            sum(p.numel() for p in layer.parameters()) for layer in base.model.get_decoder().layers
        ]
        slot = AdapterSlot(base, AdapterSettings(top_layers=top))
        self.bench = Workbench(base, slot, Trunk(base, slot))
        self.rows = [render(base.reader, settings, r.instruction, r.input, r.output, r.images) for r in rows]
        self.batch = told.batch or shape.batch
        steps = told.steps or shape.steps
        self.plan = [[self.rows[i] for i in b] for b in batches(len(rows), [], steps, self.batch, 0)]
        slot.initialise(0)
        self.start = slot.tensors()
        self.expected = token_mean(self.bench, self.plan[0])

    @property
    def tokens(self) -> int:
        """Tokens of all rows read, prompts included."""
        return sum(len(row.tokens) for batch in self.plan for row in batch)

    @property
    def positions(self) -> int:
        """Positions that lcia's prefix trees have for them."""
        return sum(len(pack.tokens) for batch in self.plan for pack in packs([row.tokens for row in batch]))

    def tuning(self, rule: str = "none", *, checkpointing: bool = False, steps: int | None = None) -> TuningSettings:
        """Settings of every run."""
        return TuningSettings(
            steps=steps or len(self.plan),
            batch_size=self.batch,
            max_rows=None,
            learning_rate=2e-4,
            checkpoint_every=10**6,
            gradient_checkpointing=checkpointing,
            ema=EmaSettings(rule=rule, max_fallback=1, fisher_rows=1),
        )

    def lcia(self, tuning: TuningSettings, watch: Stopwatch) -> list[float]:
        """Losses of a run of the product's tuner from the start."""
        if self.bench.base.sight:
            self.bench.base.sight.forget()  # or the second round would find what the first has seen
        parent = Parent(self.start, None)
        bench = self.bench
        return tuner.tune(bench.trunk, bench.slot, self.rows, [], parent, tuning, watch, progress=watch.report).losses

    def run_lcia(self, rule: str = "none", *, checkpointing: bool = False) -> Timed:
        """The tuner, measured."""

        def run() -> tuple[list[float], list[float]]:
            watch = Stopwatch(now)
            return self.lcia(self.tuning(rule, checkpointing=checkpointing), watch), watch.seconds

        return self._timed(run)  # its loss is a mean over rows, which the others' is not

    def run_plain(self, *, checkpointing: bool) -> Timed:
        """The plain loop, measured."""
        slot = self.bench.slot

        def run() -> tuple[list[float], list[float]]:
            slot.load(self.start)
            return plain_loop(
                slot.model, self.plan, list(slot.parameters.values()), self.tuning(), self._schedule(), self._collate
            )

        if checkpointing:
            slot.model.gradient_checkpointing_enable({"use_reentrant": False})
        slot.model.train()
        try:
            return self._same(PLAIN, self._timed(run))
        finally:
            slot.model.eval()
            if checkpointing:
                slot.model.gradient_checkpointing_disable()

    def run_sft(self) -> dict[str, Timed]:
        """SFTTrainer on a copy of its own, without and with its default; lcia's own model is given up before."""
        from benchmarks.tuning_speed.sft import Baseline

        lora, schedule = self.bench.slot.config, self._schedule()
        del self.bench
        release()
        dtype, kind = "bfloat16", self.shape.kind
        baseline = Baseline(self.folder, dtype, lora, device=self.device, kind=kind, now=now)

        def run() -> tuple[list[float], list[float]]:
            collate = self._collate if self.shape.side else None
            result = baseline.train(self.plan, self.start, self.tuning(), schedule, collate)
            return result.losses, result.clock

        results = {SFT: self._same(SFT, self._timed(run))}
        baseline.checkpointing = True
        return results | {SFT_DEFAULTS: self._same(SFT_DEFAULTS, self._timed(run))}

    def _timed(self, run: Callable[[], tuple[list[float], list[float]]]) -> Timed:
        """Of each step the least time over the rounds; the first round warms up what is slow once."""
        results = []
        for _ in range(self.rounds):
            memory = Memory()
            start = now()
            losses, clock = run()
            results.append((clock[0] - start, [b - a for a, b in pairwise(clock)]))
        steps = [min(step) for step in zip(*(steps for _, steps in results), strict=True)]
        return Timed(min(before for before, _ in results), steps, losses[0], memory.peak)

    def _same(self, name: str, timed: Timed) -> Timed:
        if not abs(timed.loss - self.expected) <= TOLERANCE * self.expected:
            raise SystemExit(
                f"{name} computes something else: its first loss is {timed.loss}, that of lcia's trunk {self.expected}"
            )
        return timed

    def _schedule(self) -> Callable[[int], float]:
        """The product's learning rates, one more than there are steps: torch's scheduler asks for the next."""
        whole = EarlyStopping(length(len(self.rows), self.tuning()), 0)
        run = Run(self.bench.trunk, self.bench.slot, [], {}, None, self.tuning(), whole)
        return [run.learning_rate(step) for step in range(len(self.plan) + 1)].__getitem__

    def _collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        return collate(self.reader, rows)


def plain_loop(
    model: nn.Module,
    plan: Batches,
    parameters: list[nn.Parameter],
    settings: TuningSettings,
    schedule: Callable[[int], float],
    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Tensor]],
) -> tuple[list[float], list[float]]:
    """Losses, and seconds at the begin and the end of each step, of what people write without a framework."""
    device, dtype = parameters[0].device, torch.bfloat16
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    losses, clock = [], [now()]
    for step, batch in enumerate(plan):
        optimizer.param_groups[0]["lr"] = schedule(step)
        inputs = on_device(collate([labelled(row) for row in batch]), device, dtype)
        with torch.autocast(device.type, dtype):
            loss = model(**inputs, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        clock.append(now())
    return [float(loss) for loss in losses], clock


def labelled(row: Rendered) -> dict[str, list[int]]:
    """Tokens, and what the loss is taken on."""
    return {"input_ids": list(row.tokens), "labels": [-100] * len(row.prompt) + list(row.answer)}


def collate(reader: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """A batch padded on the right, with the pixels of its images."""
    tokens = [list(row["input_ids"]) for row in rows]
    sees = isinstance(reader, ImageReader)
    images = [reader.inputs(each) for each in tokens] if sees else []
    plain = [reader.plain(each) for each in tokens] if sees else tokens
    pad = nn.utils.rnn.pad_sequence
    batch = {
        "input_ids": pad([torch.tensor(each) for each in plain], batch_first=True),
        "attention_mask": pad([torch.ones(len(each), dtype=torch.long) for each in plain], batch_first=True),
        "labels": pad([torch.tensor(row["labels"]) for row in rows], batch_first=True, padding_value=-100),
    }
    return batch | {name: torch.cat([each[name] for each in images]) for name in (images[0] if images else ())}
