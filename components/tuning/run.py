"""Live state of one tuning run: weights, optimizer, EMA, points and losses; a checkpoint is all of it.

Where several processes share the work, each has a state of its own with the same bits: gradients add up to those of the
whole batch before anything reads them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, cos, isfinite, isnan, pi
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from components.model.adapters import AdapterSlot, is_lora
from components.model.prompts import Rendered
from components.model.trunk import State, Trunk
from components.settings import Length, TuningSettings
from components.tuning.curvature import diagonal_fisher
from components.tuning.dynamic_ema import DynamicEMA
from components.tuning.early_stopping import EarlyStopping, ValidationScore, checks_of
from components.tuning.points import Points, Tensors, TuningFailed
from components.tuning.rehearsal import select_rows

FALLBACKS_SHOWN = 10


@dataclass(frozen=True)
class Parent:
    """State of a group that learns again: its adapter and, if known, the curvature of its tasks."""

    adapter: Tensors
    curvature: Tensors | None


@dataclass(frozen=True)
class TuningResult:
    """Points of the stability-plasticity curve, and the course of the run.

    `points` maps `ema`, `live` and `mix-<lambda>` (`mix-<lambda>-<lambda>` for the lower and upper layers) to
    adapters. `curvature` sums the normalised Fisher of the group's tasks, the earlier ones decayed; a rule that does
    not use it adds nothing and hands on the parent's (None without one). `losses` is the mean over each step's rows,
    `old_losses` over its rows of earlier tasks (None for a step without one; empty where no step had one).
    `fallbacks` counts the updates that fell back, for the tensors with most of them. `stopping` says why the run
    ended, and has the step whose weights the points are laid out from.
    """

    points: dict[str, Tensors]
    curvature: Tensors | None
    losses: list[float]
    old_losses: list[float | None]
    history: dict[str, list[float]]
    fallback_share: float
    fallbacks: dict[str, int]
    length: Length
    stopping: dict[str, Any]
    kept_rows: int
    recalled_rows: int
    resumed_across: tuple[str, ...] = ()
    """Other kinds of machine that did earlier steps; with any, the last bits may differ."""

    @property
    def rows(self) -> int:
        """Training rows of the task that were drawn."""
        return self.length.drawn


def fisher_rows(count: int, settings: TuningSettings) -> list[int]:
    """The task's rows, of `count`, that its Fisher is measured on: drawn at random, for rows may lie in an order."""
    return select_rows(count, settings.ema.fisher_rows, settings.seed) if settings.ema.rule == "curvature" else []


class Run:
    """Live state of one tuning run: weights, optimizer, EMA, losses."""

    def __init__(
        self,
        trunk: Trunk,
        slot: AdapterSlot,
        rows: Sequence[Rendered],
        states: Mapping[int, State],
        parent: Parent | None,
        settings: TuningSettings,
        stopping: EarlyStopping,
    ) -> None:
        self.stopping, self.steps = stopping, stopping.length.steps
        self.trunk, self.slot, self.rows, self.states = trunk, slot, rows, states
        self.parent, self.settings, self.ranks = parent, settings, trunk.base.ranks
        limit = settings.rows_per_pass
        self.rows_per_pass = 1 if trunk.base.is_sharded else None if limit == "auto" else limit
        self.names = list(slot.parameters)
        self.parameters = list(slot.parameters.values())
        self.rates = self._rates()
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters} for _, parameters in self.rates],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=(on_gpu := trunk.base.device.type == "cuda"),
            foreach=not on_gpu,
        )
        self.optimizer.zero_grad(set_to_none=True)  # what an interrupted run left behind
        ema = settings.ema
        self.rule = self._rule()
        old = parent.curvature if parent and self.rule == "curvature" else None
        self.ema = DynamicEMA(
            self.parameters,
            self.rule,
            steps=self.steps,
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
        self.points = Points(self.names, settings, has_parent=self.rule != "none")
        self.losses: list[Tensor] = []  # (2,) per step: over all rows, over those of earlier tasks (nan without)
        self.teacher: dict[int, Tensor] = {}
        self.best: dict[str, Tensor] = {}  # state of the best measurement, on the CPU
        numerics = trunk.base.numerics
        self.place = f"{numerics['device']}, {torch.get_num_threads()} threads, torch {numerics['torch']}"
        self.place += f", {self.ranks.count} processes" if self.ranks.count > 1 else ""
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

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then linear decay to a tenth of the peak at the last step, or a cosine to zero."""
        warmup = max(1, round(self.settings.warmup * self.steps))
        if step < warmup:
            return self.settings.learning_rate * (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        factor = 1 - 0.9 * progress if self.settings.decay == "linear" else 0.5 * (1 + cos(pi * progress))
        return self.settings.learning_rate * factor

    def step(self, step: int, batch: Sequence[int], places: Sequence[int], earlier: range) -> None:
        """One optimizer step on the rows of `batch`, then the EMA; `earlier` are the rows of earlier tasks.

        `places` are those of the batch that this process reads; the others read the rest.

        Raises:
            OutOfMemory: the device has not enough memory.
        """
        lr = self.learning_rate(step)
        for group, (share, _) in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = share * lr
        losses = self._gradients(step, batch, places)
        if self.ranks.count > 1:
            for parameter in self.parameters:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            self.ranks.add_up([*(p.grad for p in self.parameters if p.grad is not None), losses])
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm, foreach=True)
        self.ema.read_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(lr)
        old = losses[[place for place, i in enumerate(batch) if i in earlier]]
        self.losses.append(torch.stack([losses.mean(), old.mean()]))

    def _gradients(self, step: int, batch: Sequence[int], places: Sequence[int]) -> Tensor:
        """Leave the gradient of this process's share; returns the losses (batch), zero at places of other processes.

        With `rows_per_pass: auto` a pass that does not fit into memory is halved, and stays so.
        """
        while True:
            size = self.rows_per_pass or max(1, len(places))
            try:
                return self._passes(step, batch, places, size)
            except torch.OutOfMemoryError:
                if self.settings.rows_per_pass != "auto" or size == 1:  # noqa: S105 - no password
                    raise
            # beyond the handler, whose traceback holds what filled the memory
            self.rows_per_pass = ceil(size / 2)
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()

    def _passes(self, step: int, batch: Sequence[int], places: Sequence[int], size: int) -> Tensor:
        # dropout of its own for each seed, step and process (two primes keep them apart), and the same after a resume
        torch.manual_seed(self.settings.seed * 1_000_003 + step + 1_000_000_007 * self.ranks.number)
        self.slot.dropout(active=True)
        losses = torch.zeros(len(batch), device=self.parameters[0].device)
        for start in range(0, len(places), size):
            part = list(places[start : start + size])
            own = self._losses([batch[place] for place in part])
            (own.mean() * (len(part) / len(batch))).backward()  # type: ignore[no-untyped-call]
            losses[part] = own.detach()
        if self.trunk.base.is_sharded:  # every process makes the same passes, or they wait for one another for ever
            for _ in range(ceil(len(batch) / self.ranks.count) - len(places)):
                (0 * self._losses(batch[:1]).sum()).backward()  # type: ignore[no-untyped-call]
        return losses

    def _losses(self, rows: Sequence[int]) -> Tensor:
        with self.trunk.recomputing(active=self.settings.gradient_checkpointing):
            logits = self._logits(rows)
        return torch.stack([self._row_loss(i, values) for i, values in zip(rows, logits, strict=True)])

    def _logits(self, rows: Sequence[int]) -> list[Tensor]:
        bfloat16 = self.trunk.base.model.dtype == torch.bfloat16
        with torch.autocast(self.trunk.base.device.type, torch.bfloat16, enabled=bfloat16):
            return self.trunk.answer_logits([self.states[i] for i in rows], [len(self.rows[i].prompt) for i in rows])

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
            for i, output in zip(batch, self.trunk.outputs([self.states[i] for i in batch]), strict=True):
                self.teacher[i] = output[len(self.rows[i].prompt) - 1 : -1].clone()

    @torch.no_grad()
    def validate(self, step: int, rows: range, batch_rows: int) -> None:
        """Measure the validation rows after `step` steps; the state is kept if it is the best so far.

        Each process reads its share of them, and all get the same sums.

        Raises:
            TuningFailed: the loss is not finite.
        """
        self.slot.dropout(active=False)
        own = list(rows[self.ranks.number :: self.ranks.count])
        sums = torch.zeros(2, device=self.parameters[0].device)
        for start in range(0, len(own), batch_rows):
            batch = own[start : start + batch_rows]
            for i, logits in zip(batch, self._logits(batch), strict=True):
                answer = torch.tensor(self.rows[i].answer, device=logits.device)
                loss = torch.nn.functional.cross_entropy(logits, answer)
                sums += torch.stack([(logits.argmax(-1) == answer).all().to(loss), loss])
        most = len(rows[:: self.ranks.count])
        if self.trunk.base.is_sharded and ceil(len(own) / batch_rows) < ceil(most / batch_rows):
            self._logits(rows[:1])  # every process makes the same passes, or they wait for one another for ever
        self.ranks.add_up([sums])
        hits, loss_sum = sums.tolist()
        if not isfinite(loss_sum):
            raise TuningFailed(
                f"the loss on validation rows is not finite after step {step}; lower tuning.learning_rate"
            )
        if self.stopping.add(ValidationScore(step, hits / len(rows), loss_sum / len(rows))):
            self.best = {key: value.cpu().clone() for key, value in self._weights().items()}

    def _weights(self) -> dict[str, Tensor]:
        """Live weights and, where the rule keeps them apart, theta*."""
        tensors = {f"live.{name}": p.detach() for name, p in zip(self.names, self.parameters, strict=True)}
        if self.rule not in ("none", "curvature"):
            tensors |= {f"average.{name}": t for name, t in zip(self.names, self.ema.average, strict=True)}
        return tensors

    @torch.no_grad()
    def _take_best(self) -> None:
        """Go back to the state of the best measurement, if there was any."""
        for key, tensor in self._weights().items():
            if self.best:
                tensor.copy_(self.best[key])

    def check(self) -> None:
        """Fail as soon as a checkpoint would store a run that has diverged.

        Raises:
            TuningFailed: a loss is not finite.
            RanksDisagree: the processes' weights are no longer the same.
        """
        losses = torch.stack(self.losses)[:, 0]
        if not bool(torch.isfinite(losses).all()):
            first = int((~torch.isfinite(losses)).nonzero()[0])
            raise TuningFailed(f"the loss is not finite at step {first + 1}; lower tuning.learning_rate")
        if self.ranks.count > 1:
            content = b"".join(t.detach().cpu().numpy().tobytes() for t in (*self.parameters, *self.ema.average))
            self.ranks.agree("the weights and their EMA", content)

    def checkpoint(self, step: int) -> bytes:
        """Everything a resumed run needs, as one safetensors file."""
        tensors = {f"live.{name}": p.detach() for name, p in zip(self.names, self.parameters, strict=True)}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        tensors |= {f"ema.{key}": value for key, value in self.ema.state_dict().items()}
        tensors |= {f"best.{key}": value for key, value in self.best.items()}
        tensors["losses"] = torch.stack(self.losses)
        on_cpu = {key: value.cpu().contiguous().clone() for key, value in tensors.items()}
        metadata = {"step": step, "places": [*self.places, self.place], "rows_per_pass": self.rows_per_pass}
        metadata["checks"] = self.stopping.checks
        data: bytes = save(on_cpu, metadata={key: json.dumps(value) for key, value in metadata.items()})
        return data

    def curves(self) -> dict[str, Any]:
        """Values that `progress_curves` reads."""
        losses, old = torch.stack(self.losses).T.tolist()
        old_losses = [None if isnan(x) else x for x in old]
        return {"losses": losses, "old_losses": old_losses, "history": self.ema.history(), "rule": self.rule}

    def restore(self, data: bytes | None) -> int:
        """Continue from a checkpoint of this very adapter, if there is one; returns the number of steps already done.

        A machine on which `adapter.top_layers: auto` is another depth starts anew.

        Raises:
            RanksDisagree: the processes do not find the same checkpoint.
        """
        self.ranks.agree("the checkpoint", data or b"")
        if data is None:
            return 0
        tensors, metadata = load(data), _metadata(data)
        shapes = {name.removeprefix("live."): t.shape for name, t in tensors.items() if name.startswith("live.")}
        if shapes != {name: p.shape for name, p in zip(self.names, self.parameters, strict=True)}:
            return 0
        step: int = metadata["step"]
        self.places = [place for place in metadata.get("places", []) if place != self.place]
        if self.settings.rows_per_pass == "auto" and not self.trunk.base.is_sharded:  # noqa: S105 - no password
            self.rows_per_pass = metadata.get("rows_per_pass")
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
        self.best, self.stopping.checks = _part(tensors, "best."), checks_of(metadata.get("checks", []))
        self.losses = list(tensors["losses"].to(self.parameters[0].device).unbind())
        return step

    def finish(self, before: Tensors, sample: Sequence[int], rehearsal_rows: int, recall_rows: int) -> TuningResult:
        """Go back to the best state, average, measure the curvature on the rows of `sample`, and lay out the curve."""
        self._take_best()
        live = self.slot.tensors()
        if all(torch.equal(live[name], before[name]) for name in live):
            raise TuningFailed("tuning did not change the adapter at all; check tuning.learning_rate and steps")
        curvature = self.parent.curvature if self.parent else None
        if self.settings.ema.rule == "curvature":
            curvature = self._curvature(sample)
        share, fallbacks = self.ema.fallback_share(), self._fallbacks()
        if share > self.settings.ema.max_fallback:
            most = ", ".join(f"{name} ({count} of {len(self.losses)})" for name, count in [*fallbacks.items()][:3])
            raise TuningFailed(
                f"{share:.0%} of the EMA updates of rule {self.rule!r} fell back to a fixed beta, more than "
                f"tuning.ema.max_fallback ({self.settings.ema.max_fallback:.0%}), most of them at {most}: the rule "
                "does not suit this adapter; use curvature or scale_free, or raise the limit knowingly"
            )
        curves = self.curves()
        return TuningResult(
            points=self.points.lay_out(before, live, self.ema.average),
            curvature=curvature,
            losses=curves["losses"],
            old_losses=curves["old_losses"] if rehearsal_rows + recall_rows else [],
            history=curves["history"],
            fallback_share=share,
            resumed_across=tuple(self.places),
            fallbacks=fallbacks,
            length=self.stopping.length,
            stopping=self.stopping.record(len(self.losses)),
            kept_rows=rehearsal_rows,
            recalled_rows=recall_rows,
        )

    def _curvature(self, rows: Sequence[int]) -> Tensors:
        """decay F_old + F_new, with F_new at theta*, the point that is laid out as `ema`.

        A new group has one point, the live weights. In a reused one theta* is first consolidated with F_old and the
        Fisher at the live weights, which the average is taken from; F_new is then measured again, on the same rows and
        with the same draws, where the quadratic that the next task is pulled by has its centre. That second
        measurement costs as much as the first, one pass over `fisher_rows` rows.
        """
        fisher = self._fisher(rows)
        if self.rule == "curvature":
            self.ema.consolidate(fisher, self.settings.ema.tau)
            with self.ema.swap():
                fisher = self._fisher(rows)
        old = self.parent.curvature if self.parent and self.parent.curvature else {}
        decays = {name: self.settings.ema.decay * f for name, f in old.items()}
        return {n: (f.cpu() + decays[n] if n in decays else f.cpu()) for n, f in zip(self.names, fisher, strict=True)}

    def _fisher(self, rows: Sequence[int]) -> list[Tensor]:
        """Diagonal Fisher at the weights in the slot."""
        states, lengths = [self.states[i] for i in rows], [len(self.rows[i].prompt) for i in rows]
        fisher = diagonal_fisher(self.trunk, self.slot, states, lengths, self.settings.seed)
        self.ranks.take_first(fisher)
        return fisher

    def _fallbacks(self) -> dict[str, int]:
        counts = sorted(self.ema.fallbacks().items(), key=lambda item: -item[1])
        return {name: count for name, count in counts[:FALLBACKS_SHOWN] if count}


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _metadata(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    header: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
    return {key: json.loads(value) for key, value in header.items()}
