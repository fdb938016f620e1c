"""Continual tuning of one adapter on one task, resumable at every checkpoint to the same bytes."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import cos, isnan, pi
from typing import Any, Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor

from components.errors import LciaError
from components.model.adapters import AdapterSlot, is_lora
from components.model.prompts import Rendered
from components.model.trunk import State, Trunk
from components.settings import TuningSettings
from components.tuning.curvature import diagonal_fisher
from components.tuning.curve import grid, layer_groups, mix
from components.tuning.dynamic_ema import DynamicEMA
from components.tuning.power_ema import PowerEMA, planned_error
from components.tuning.progress_curves import FILE as CURVES
from components.tuning.pseudo_rehearsal import Recall, parents_answers
from components.tuning.rehearsal import batches, select_rows
from components.tuning.stopping import put_off

Tensors = dict[str, Tensor]
Progress = Callable[[str, int, int], None]
CHECKPOINT = "checkpoint.safetensors"
SNAPSHOTS = 30
"""About as many snapshots of the power-function EMAs are kept, spread over the steps."""
LARGEST_ERROR = 0.05
"""How far the weights that a reconstructed EMA gives to the steps may be off, as a share of their norm."""
FALLBACKS_SHOWN = 10


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

    `points` maps `ema`, `live`, `mix-<lambda>` (`mix-<lambda>-<lambda>` for the lower and upper layers) and
    `ema-<length>` to adapters; `curvature` sums the normalised Fisher of the group's tasks, this one included, the
    earlier ones decayed (None for rules that do not use it). `losses` is the mean over each step's rows,
    `old_losses` over its rows of earlier tasks (None for a step without one; empty where no step had one).
    `fallbacks` counts the updates that fell back, for the tensors where most did.
    """

    points: dict[str, Tensors]
    curvature: Tensors | None
    losses: list[float]
    old_losses: list[float | None]
    history: dict[str, list[float]]
    fallback_share: float
    fallbacks: dict[str, int]
    rows: int
    kept_rows: int
    recalled_rows: int
    resumed_across: tuple[str, ...] = ()
    """Other kinds of machine that did earlier steps; where there are any, the last bits may differ."""


def tune(
    trunk: Trunk,
    slot: AdapterSlot,
    new: Sequence[Rendered],
    kept: Sequence[Rendered],
    parent: Parent | None,
    settings: TuningSettings,
    checkpoints: Checkpoints | None,
    batch_rows: int = 32,
    progress: Progress | None = None,
    recalls: Sequence[Recall] = (),
    pseudo: Sequence[Rendered] = (),
) -> TuningResult:
    """Tune the adapter in `slot` on `new` rows with `kept` rows of earlier tasks mixed in.

    `pseudo` rows are the new task's too, labelled by a model (pseudo_labels.py), and come on top of `new`.

    A new group (`parent` None) trains plainly, as published; a reused one starts from its parent's weights
    with a fresh optimizer, under the EMA rule of the settings. Without `checkpoints` a run cannot be resumed.

    Raises:
        TuningFailed: the loss is not finite, too many EMA updates fell back, the adapter did not change, or the
            settings ask for points of the curve that cannot be had.
    """
    chosen = select_rows(len(new), settings.max_rows, settings.seed)
    kept = kept if settings.rehearsal.share > 0 else ()
    if parent is None:
        slot.initialise(settings.seed)
        recalls = ()
    else:
        slot.load(parent.adapter)
    recalled = parents_answers(trunk.base, slot, recalls, batch_rows)
    rows = [new[i] for i in chosen] + list(kept) + recalled + list(pseudo)
    old = range(len(chosen), len(chosen) + len(kept) + len(recalled))
    sources = [
        (len(kept), settings.rehearsal.share),
        (len(recalled), settings.pseudo_rehearsal.share),
        (len(pseudo), settings.pseudo_labels.share),
    ]
    plan = batches(len(chosen), sources, settings.steps, settings.batch_size, settings.seed)
    used = sorted({i for batch in plan for i in batch} | set(range(min(settings.ema.fisher_rows, len(chosen)))))
    states = _trunk_states(trunk, rows, used, batch_rows, progress)
    before = slot.tensors()
    run = _Run(trunk, slot, rows, states, parent, settings)
    distilled = old if settings.rehearsal.targets == "parent" else old[len(kept) :]
    run.distil([i for i in used if i in distilled], batch_rows)
    step = run.restore(checkpoints) if checkpoints else 0
    if progress and step:
        progress("tune", step, settings.steps)
    try:
        with put_off() as stop:
            while step < settings.steps:
                run.step(step, plan[step], old)
                step += 1
                if progress:
                    progress("tune", 1, settings.steps)
                if step % settings.checkpoint_every == 0 or step == settings.steps or stop.asked:
                    run.check_losses()
                    if checkpoints:
                        checkpoints.write(CHECKPOINT, run.checkpoint(step))
                        checkpoints.write(CURVES, json.dumps(run.curves()).encode())
                if stop.asked:
                    stop.obey()
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
        self.rates = self._rates()
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters} for _, parameters in self.rates],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            foreach=True,
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
            smoothing=ema.smoothing,
            kappa=ema.kappa,
            importance=[old[name] for name in self.names] if old else None,
            names=self.names,
        )
        self.mixes = self._mixes()
        self.power = self._power()
        self.losses: list[Tensor] = []  # (2,) per step: over all rows, over those of earlier tasks (nan without)
        self.teacher: dict[int, Tensor] = {}
        numerics = trunk.base.numerics
        self.place = f"{numerics['device']}, {torch.get_num_threads()} threads, torch {numerics['torch']}"
        self.places: list[str] = []  # other kinds of machine that did earlier steps

    def _rates(self) -> list[tuple[float, list[torch.nn.Parameter]]]:
        """Parameters by their learning rate relative to the peak, in the order of the slot."""
        whole = [p for n, p in self.slot.parameters.items() if not is_lora(n)]
        rate = self.settings.projector_learning_rate
        if not whole or rate is None:
            return [(1.0, self.parameters)]
        lora = [p for n, p in self.slot.parameters.items() if is_lora(n)]
        return [(1.0, lora), (rate / self.settings.learning_rate, whole)]

    def _rule(self) -> str:
        if self.parent is None:
            return "none"  # a new group trains plainly: there is nothing to protect
        if self.settings.ema.rule == "curvature" and self.parent.curvature is None:
            raise TuningFailed(
                "tuning.ema.rule is curvature, but the group's adapter was tuned without it and has no stored "
                "curvature; use another rule for this group (--set tuning.ema.rule=scale_free)"
            )
        return self.settings.ema.rule

    def _mixes(self) -> dict[str, dict[str, float]]:
        try:
            layered, groups = [name for name in self.names if is_lora(name)], 2 if self.settings.curve_by_layers else 1
            points = grid(layered, groups, self.settings.curve)
            lowest = layer_groups(layered, groups)[0][0]  # a projector lies below all layers
            return {
                point: shares | {name: shares[lowest] for name in self.names if name not in shares}
                for point, shares in points.items()
            }
        except ValueError as error:
            raise TuningFailed(f"tuning.curve_by_layers is on, but {error}; switch it off") from error

    def _power(self) -> PowerEMA | None:
        """EMAs to reconstruct other lengths from; what cannot be reconstructed is refused before any training."""
        lengths, steps = self.settings.ema_lengths, self.settings.steps
        if self.rule == "none" or not lengths:
            return None
        every = max(1, steps // SNAPSHOTS)
        for length in lengths:
            error = planned_error(length, steps, every)
            if error > LARGEST_ERROR:
                raise TuningFailed(
                    f"tuning.ema_lengths: an EMA of length {length:g} cannot be reconstructed after {steps} steps: the "
                    f"weights of the steps would be off by {error:.0%}, at most {LARGEST_ERROR:.0%} are allowed; "
                    "use lengths from 0.02 to 0.25"
                )
        return PowerEMA(self.parameters, every=every)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then linear decay to a tenth of the peak at the last step, or a cosine to zero."""
        warmup = max(1, round(self.settings.warmup * self.settings.steps))
        if step < warmup:
            return self.settings.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.settings.steps - warmup)
        left = 1 - 0.9 * done if self.settings.decay == "linear" else 0.5 * (1 + cos(pi * done))
        return self.settings.learning_rate * left

    def step(self, step: int, batch: Sequence[int], earlier: range) -> None:
        """One optimizer step on the rows of `batch`, then the EMA; `earlier` are the rows of earlier tasks."""
        lr = self.learning_rate(step)
        for group, (share, _) in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = share * lr
        torch.manual_seed(self.settings.seed * 1_000_003 + step)  # dropout, the same after a resume
        self.slot.dropout(active=True)
        size, parts = self.settings.rows_per_pass or len(batch), []
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            logits = self.trunk.answer_logits([self.states[i] for i in part], [len(self.rows[i].prompt) for i in part])
            own = torch.stack([self._row_loss(i, values) for i, values in zip(part, logits, strict=True)])
            (own.mean() * (len(part) / len(batch))).backward()  # type: ignore[no-untyped-call]
            parts.append(own.detach())
        losses = torch.cat(parts)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm, foreach=True)
        self.ema.read_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(lr)
        if self.power:
            self.power.update(step + 1)
        old = losses[[place for place, i in enumerate(batch) if i in earlier]]
        self.losses.append(torch.stack([losses.mean(), old.mean()]))

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
        losses = torch.stack(self.losses)[:, 0]
        if not bool(torch.isfinite(losses).all()):
            first = int((~torch.isfinite(losses)).nonzero()[0])
            raise TuningFailed(f"the loss is not finite at step {first + 1}; lower tuning.learning_rate")

    def checkpoint(self, step: int) -> bytes:
        """Everything a resumed run needs, as one safetensors file."""
        tensors = {f"live.{name}": p.detach() for name, p in zip(self.names, self.parameters, strict=True)}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        tensors |= {f"ema.{key}": value for key, value in self.ema.state_dict().items()}
        if self.power:
            tensors |= {f"power.{key}": value for key, value in self.power.state_dict().items()}
        tensors["losses"] = torch.stack(self.losses)
        on_cpu = {key: value.cpu().contiguous().clone() for key, value in tensors.items()}
        data: bytes = save(on_cpu, metadata={"step": str(step), "places": json.dumps([*self.places, self.place])})
        return data

    def curves(self) -> dict[str, Any]:
        """What `progress_curves` reads."""
        losses, old = torch.stack(self.losses).T.tolist()
        old_losses = [None if isnan(x) else x for x in old]
        return {"losses": losses, "old_losses": old_losses, "history": self.ema.history(), "rule": self.rule}

    def restore(self, checkpoints: Checkpoints) -> int:
        """Continue from the newest checkpoint; returns the number of steps already done."""
        data = checkpoints.read(CHECKPOINT)
        if data is None:
            return 0
        tensors, told = load(data), _metadata(data)
        step = int(told["step"])
        self.places = [place for place in json.loads(told.get("places", "[]")) if place != self.place]
        with torch.no_grad():
            for name, parameter in zip(self.names, self.parameters, strict=True):
                parameter.copy_(tensors[f"live.{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, field = key.split(".", 2)
                state.setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.ema.load_state_dict(_part(tensors, "ema."))
        if self.power:
            self.power.load_state_dict(_part(tensors, "power."))
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
        share, fallbacks = self.ema.fallback_share(), self._fallbacks()
        if share > self.settings.ema.max_fallback:
            most = ", ".join(f"{name} ({count} of {self.settings.steps})" for name, count in [*fallbacks.items()][:3])
            raise TuningFailed(
                f"{share:.0%} of the EMA updates of rule {self.rule!r} fell back to a fixed beta, more than "
                f"tuning.ema.max_fallback ({self.settings.ema.max_fallback:.0%}), most of them at {most}: the rule "
                "does not suit this adapter; use curvature or scale_free, or raise the limit knowingly"
            )
        seen = self.curves()
        return TuningResult(
            points=self._points(before, live),
            curvature=curvature,
            losses=seen["losses"],
            old_losses=seen["old_losses"] if kept + recalled else [],
            history=seen["history"],
            fallback_share=share,
            resumed_across=tuple(self.places),
            fallbacks=fallbacks,
            rows=len(chosen),
            kept_rows=kept,
            recalled_rows=recalled,
        )

    def _curvature(self, count: int) -> Tensors:
        """decay F_old + F_new; on a reused group theta* is consolidated with F_old and F_new first."""
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
        kept = {name: self.settings.ema.decay * f for name, f in old.items()}
        return {n: (f.cpu() + kept[n] if n in kept else f.cpu()) for n, f in zip(self.names, fisher, strict=True)}

    def _points(self, before: Tensors, live: Tensors) -> dict[str, Tensors]:
        points = {"live": live}
        if self.rule == "none":
            return points
        points["ema"] = {n: t.cpu().clone() for n, t in zip(self.names, self.ema.average, strict=True)}
        points |= {name: mix(before, live, shares) for name, shares in self.mixes.items()}
        if self.power:
            if self.power.step not in self.power.snapshots:
                self.power.snapshot()
            for length in self.settings.ema_lengths:
                points[f"ema-{length:g}"] = dict(zip(self.names, self.power.reconstruct(length), strict=True))
        return points

    def _fallbacks(self) -> dict[str, int]:
        counts = sorted(self.ema.fallbacks().items(), key=lambda item: -item[1])
        return {name: count for name, count in counts[:FALLBACKS_SHOWN] if count}


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _metadata(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    metadata: dict[str, Any] = json.loads(data[8 : 8 + size])["__metadata__"]
    return metadata
