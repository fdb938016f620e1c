"""Continual tuning of one adapter on one task, resumable at every checkpoint to the same bytes."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor

from components.errors import LciaError
from components.model.adapters import AdapterSlot
from components.model.prompts import Rendered
from components.model.trunk import State, Trunk
from components.settings import TuningSettings
from components.tuning.curvature import diagonal_fisher
from components.tuning.dynamic_ema import DynamicEMA
from components.tuning.pseudo_rehearsal import Recall, parents_answers
from components.tuning.rehearsal import batches, select_rows

Tensors = dict[str, Tensor]
Progress = Callable[[str, int, int], None]
CHECKPOINT = "checkpoint.safetensors"


class TuningFailed(LciaError):
    """The run produced nothing that may be used; nothing was registered."""


class Checkpoints(Protocol):
    """A small mutable work area; `read` gives None for what is absent or damaged."""

    def read(self, name: str) -> bytes | None:
        """Bytes written under `name`."""

    def write(self, name: str, data: bytes) -> None:
        """Replace what stands under `name`."""


@dataclass(frozen=True)
class Parent:
    """What a reused group brings along: its adapter and, where known, the curvature of its tasks."""

    adapter: Tensors
    curvature: Tensors | None


@dataclass(frozen=True)
class TuningResult:
    """Points of the stability-plasticity curve and what was seen on the way.

    `points` maps `ema`, `live` and `mix-<lambda>` to adapters; `curvature` sums the normalised Fisher of
    the group's tasks, this one included (None for rules that do not use it).
    """

    points: dict[str, Tensors]
    curvature: Tensors | None
    losses: list[float]
    history: dict[str, list[float]]
    fallback_share: float
    rows: int
    kept_rows: int
    recalled_rows: int


def tune(
    trunk: Trunk,
    slot: AdapterSlot,
    new: Sequence[Rendered],
    kept: Sequence[Rendered],
    parent: Parent | None,
    settings: TuningSettings,
    checkpoints: Checkpoints,
    batch_rows: int = 32,
    progress: Progress | None = None,
    recalls: Sequence[Recall] = (),
) -> TuningResult:
    """Tune the adapter in `slot` on `new` rows with `kept` rows of earlier tasks mixed in.

    A new group (`parent` None) trains plainly, as published; a reused one starts from its parent's weights
    with a fresh optimizer, under the EMA rule of the settings.

    Raises:
        TuningFailed: the loss is not finite, too many EMA updates fell back, or the adapter did not change.
    """
    chosen = select_rows(len(new), settings.max_rows, settings.seed)
    kept = kept if settings.rehearsal.share > 0 else ()
    if parent is None:
        slot.initialise(settings.seed)
        recalls = ()
    else:
        slot.load(parent.adapter)
    recalled = parents_answers(trunk.base, slot, recalls, batch_rows)
    rows = [new[i] for i in chosen] + list(kept) + recalled
    sources = [(len(kept), settings.rehearsal.share), (len(recalled), settings.pseudo_rehearsal.share)]
    plan = batches(len(chosen), sources, settings.steps, settings.batch_size, settings.seed)
    used = sorted({i for batch in plan for i in batch} | set(range(min(settings.ema.fisher_rows, len(chosen)))))
    states = _trunk_states(trunk, rows, used, batch_rows, progress)
    before = slot.tensors()
    run = _Run(trunk, slot, rows, states, parent, settings)
    old = [i for i in used if i >= len(chosen)]
    distilled = old if settings.rehearsal.targets == "parent" else [i for i in old if i >= len(chosen) + len(kept)]
    run.distil(distilled, batch_rows)
    step = run.restore(checkpoints)
    try:
        while step < settings.steps:
            run.step(step, plan[step])
            step += 1
            if progress:
                progress("tune", 1, settings.steps)
            if step % settings.checkpoint_every == 0 or step == settings.steps:
                run.check_losses()
                checkpoints.write(CHECKPOINT, run.checkpoint(step))
    finally:
        slot.dropout(active=False)  # the process goes on with the same slot, whatever happened
    return run.finish(before, chosen, len(kept), len(recalled))


def _trunk_states(
    trunk: Trunk, rows: Sequence[Rendered], used: Sequence[int], batch_rows: int, progress: Progress | None
) -> dict[int, State]:
    report = (lambda n: progress("trunk", n, len(used))) if progress else None
    return dict(zip(used, trunk.states([rows[i].tokens for i in used], batch_rows, report), strict=True))


class _Run:
    """Live state of one tuning run: weights, optimizer, EMA, losses."""

    def __init__(
        self,
        trunk: Trunk,
        slot: AdapterSlot,
        rows: Sequence[Rendered],
        states: Mapping[int, State],
        parent: Parent | None,
        settings: TuningSettings,
    ) -> None:
        self.trunk, self.slot, self.rows, self.states = trunk, slot, rows, states
        self.parent, self.settings = parent, settings
        self.names = list(slot.parameters)
        self.parameters = list(slot.parameters.values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
        )
        self.optimizer.zero_grad(set_to_none=True)  # what an interrupted run left behind
        ema = settings.ema
        self.rule = self._rule()
        old = parent.curvature if parent and self.rule == "curvature" else None
        self.ema = DynamicEMA(
            self.parameters,
            self.rule,
            steps=settings.steps,
            peak_lr=settings.learning_rate,
            beta=ema.beta,
            rho=ema.rho,
            alpha_min=ema.alpha_min,
            horizon=ema.horizon,
            kappa=ema.kappa,
            importance=[old[name] for name in self.names] if old else None,
        )
        self.losses: list[Tensor] = []
        self.teacher: dict[int, Tensor] = {}

    def _rule(self) -> str:
        if self.parent is None:
            return "none"  # a new group trains plainly: there is nothing to protect
        if self.settings.ema.rule == "curvature" and self.parent.curvature is None:
            raise TuningFailed(
                "tuning.ema.rule is curvature, but the group's adapter was tuned without it and has no stored "
                "curvature; use another rule for this group (--set tuning.ema.rule=scale_free)"
            )
        return self.settings.ema.rule

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then linear decay to a tenth of the peak at the last step."""
        warmup = max(1, round(self.settings.warmup * self.settings.steps))
        if step < warmup:
            return self.settings.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.settings.steps - warmup)
        return self.settings.learning_rate * (1 - 0.9 * done)

    def step(self, step: int, batch: Sequence[int]) -> None:
        """One optimizer step on the rows of `batch`, then the EMA."""
        lr = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(self.settings.seed * 1_000_003 + step)  # dropout, the same after a resume
        self.slot.dropout(active=True)
        logits = self.trunk.answer_logits([self.states[i] for i in batch], [len(self.rows[i].prompt) for i in batch])
        loss = torch.stack([self._row_loss(i, values) for i, values in zip(batch, logits, strict=True)]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm, foreach=True)
        self.ema.read_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(lr)
        self.losses.append(loss.detach())

    def _row_loss(self, row: int, logits: Tensor) -> Tensor:
        """Mean over the answer's tokens, so that a row with a long answer weighs as much as one with a label."""
        teacher = self.teacher.get(row)
        if teacher is None:
            labels = torch.tensor(self.rows[row].answer, device=logits.device)
            return torch.nn.functional.cross_entropy(logits, labels)
        with torch.no_grad():
            target = self.trunk.head(teacher).float().softmax(-1)
        return torch.nn.functional.cross_entropy(logits, target)

    @torch.no_grad()
    def distil(self, rows: Sequence[int], batch_rows: int) -> None:
        """Remember the parent's final hidden states at the answers of `rows`: their distribution is the target."""
        for start in range(0, len(rows), batch_rows):
            batch = rows[start : start + batch_rows]
            for i, hidden in zip(batch, self.trunk.hidden([self.states[i] for i in batch]), strict=True):
                self.teacher[i] = hidden[len(self.rows[i].prompt) - 1 : -1].clone()

    def check_losses(self) -> None:
        """Fail as soon as a checkpoint would store a run that has diverged."""
        losses = torch.stack(self.losses)
        if not bool(torch.isfinite(losses).all()):
            first = int((~torch.isfinite(losses)).nonzero()[0])
            raise TuningFailed(f"the loss is not finite at step {first + 1}; lower tuning.learning_rate")

    def checkpoint(self, step: int) -> bytes:
        """Everything a resumed run needs, as one safetensors file."""
        tensors = {f"live.{name}": p.detach() for name, p in zip(self.names, self.parameters, strict=True)}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        tensors |= {f"ema.{key}": value for key, value in self.ema.state_dict().items()}
        tensors["losses"] = torch.stack(self.losses)
        on_cpu = {key: value.cpu().contiguous().clone() for key, value in tensors.items()}
        data: bytes = save(on_cpu, metadata={"step": str(step)})
        return data

    def restore(self, checkpoints: Checkpoints) -> int:
        """Continue from the newest checkpoint; returns the number of steps already done."""
        data = checkpoints.read(CHECKPOINT)
        if data is None:
            return 0
        tensors = load(data)
        step = int(_metadata(data)["step"])
        with torch.no_grad():
            for name, parameter in zip(self.names, self.parameters, strict=True):
                parameter.copy_(tensors[f"live.{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, field = key.split(".", 2)
                state.setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.ema.load_state_dict({k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")})
        self.losses = list(tensors["losses"].to(self.parameters[0].device).unbind())
        return step

    def finish(self, before: Tensors, chosen: Sequence[int], kept: int, recalled: int) -> TuningResult:
        """Average, measure the curvature and lay out the curve."""
        live = self.slot.tensors()
        if all(torch.equal(live[name], before[name]) for name in live):
            raise TuningFailed("tuning did not change the adapter at all; check tuning.learning_rate and steps")
        curvature = None
        if self.settings.ema.rule == "curvature":
            curvature = self._curvature(len(chosen))
        share = self.ema.fallback_share()
        if share > self.settings.ema.max_fallback:
            raise TuningFailed(
                f"{share:.0%} of the EMA updates of rule {self.rule!r} fell back to a fixed beta, more than "
                f"tuning.ema.max_fallback ({self.settings.ema.max_fallback:.0%}): the rule does not suit this "
                "adapter; use curvature or scale_free, or raise the limit knowingly"
            )
        return TuningResult(
            points=self._points(before, live),
            curvature=curvature,
            losses=torch.stack(self.losses).tolist(),
            history=self.ema.history(),
            fallback_share=share,
            rows=len(chosen),
            kept_rows=kept,
            recalled_rows=recalled,
        )

    def _curvature(self, count: int) -> Tensors:
        """F_old + F_new; on a reused group theta* is consolidated with them first."""
        rows = range(min(self.settings.ema.fisher_rows, count))
        fisher = diagonal_fisher(
            self.trunk,
            self.slot,
            [self.states[i] for i in rows],
            [len(self.rows[i].prompt) for i in rows],
            self.settings.seed,
        )
        if self.rule == "curvature":
            self.ema.consolidate(fisher, self.settings.ema.tau)
        old = self.parent.curvature if self.parent and self.parent.curvature else {}
        return {n: (f.cpu() + old[n] if n in old else f.cpu()) for n, f in zip(self.names, fisher, strict=True)}

    def _points(self, before: Tensors, live: Tensors) -> dict[str, Tensors]:
        points = {"live": live}
        if self.rule == "none":
            return points
        points["ema"] = {n: t.cpu().clone() for n, t in zip(self.names, self.ema.average, strict=True)}
        for share in self.settings.curve:
            points[f"mix-{share:g}"] = {n: before[n] + share * (live[n] - before[n]) for n in live}
        return points


def _metadata(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    metadata: dict[str, Any] = json.loads(data[8 : 8 + size])["__metadata__"]
    return metadata
