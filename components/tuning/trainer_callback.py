"""Dynamic EMA for `transformers.Trainer`: works with PEFT adapters and survives a resume.

    callback = DynamicEMACallback("scale_free")
    trainer = Trainer(model, ..., callbacks=[callback])
    trainer.train(resume_from_checkpoint=True)
    with callback.ema.swap():       # live weights are theta* in here
        trainer.evaluate()

A file to take: with `dynamic_ema.py` it works in any project, and nothing of this one calls it.

Every checkpoint gets `dynamic_ema.safetensors` (theta*, the previous gradient, statistics), `dynamic_ema.json`
(step, rule, digest of the live weights) and `ema/`: theta* as a model of its own beside the live one, an adapter
that `PeftModel.from_pretrained` reads if the model is a PEFT model; the end of training writes `ema/` into the
output folder. Training goes on from the live weights; theta* only watches (rule `curvature` pulls them).

The Trainer's hooks come in the order: gradients clipped and unscaled, `on_pre_optimizer_step`, optimizer step,
`on_optimizer_step`, learning rate scheduler, so both are at the rate that was used. Checkpoints are written after
that; the Trainer's own mechanism for the state of callbacks (`ExportableState`) holds JSON values only and
replaces the callback object, so the state is kept in files of the checkpoint folder instead.

`load_best_model_at_end` changes the live weights only; theta* stays that of the last step. Keep at least two
checkpoints (`save_total_limit`): one that a crash cut off before its EMA was written is refused on resume.

Not for sharded training (ZeRO, FSDP): parameters and gradients must be whole on every process.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerState, TrainingArguments

from components.tuning.dynamic_ema import DynamicEMA

STATE, RECORD, MODEL = "dynamic_ema.safetensors", "dynamic_ema.json", "ema"


class DynamicEMACallback(TrainerCallback):  # type: ignore[misc]
    """Keeps a `DynamicEMA` of the model's trainable parameters.

    Args:
        rule: see `DynamicEMA`.
        importance: F_old of rule `curvature` by parameter name.
        checkpoint: folder to resume from, if it is neither `args.resume_from_checkpoint` nor
            `checkpoint-<step>` in the output folder.
        options: further keyword arguments of `DynamicEMA`; steps and peak learning rate come from the Trainer.
    """

    ema: DynamicEMA
    """The average, from the beginning of `Trainer.train` on."""

    def __init__(
        self,
        rule: str = "scale_free",
        *,
        importance: Mapping[str, Tensor] | None = None,
        checkpoint: str | Path | None = None,
        **options: float,
    ) -> None:
        self.rule, self.importance, self.checkpoint, self.options = rule, importance, checkpoint, options
        self._scale = 1.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, *_: object, model: PreTrainedModel, **__: object
    ) -> None:
        """Start theta* at the weights before the first step, or at the checkpoint's.

        Raises:
            ValueError: nothing is trainable, or training resumes but no folder holds the state of its checkpoint.
        """
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not parameters:
            raise ValueError("the model has no trainable parameters")
        options: dict[str, Any] = {"steps": state.max_steps, "peak_lr": args.learning_rate} | self.options
        if self.importance:
            options["importance"] = [self.importance[name] for name in parameters]
        self.ema = DynamicEMA(list(parameters.values()), self.rule, names=list(parameters), **options)
        if state.global_step:
            self.ema.load_state_dict(load_file(self._resume_folder(args, state) / STATE))

    def _resume_folder(self, args: TrainingArguments, state: TrainerState) -> Path:
        """The checkpoint folder the Trainer resumed from; it tells callbacks only the step.

        The digest of the live weights, which are restored already, proves that it is the right one.
        """
        digest, faults = live_digest(self.ema), []
        for folder in (self.checkpoint, args.resume_from_checkpoint, _folder(args, state)):
            if not isinstance(folder, str | Path):
                continue
            file = Path(folder) / RECORD
            if not file.is_file():
                faults.append(f"{folder} has no {RECORD}")
                continue
            record = json.loads(file.read_text(encoding="utf-8"))
            if (record["step"], record["live"]) == (state.global_step, digest):
                return Path(folder)
            faults.append(f"{folder} belongs to step {record['step']} of other live weights")
        raise ValueError(
            f"training resumes at step {state.global_step}, but no state of the EMA was found for it: "
            f"{'; '.join(faults)}. Pass DynamicEMACallback(checkpoint=<folder>), resume from an earlier checkpoint "
            "(this one may have been cut off), or start without resuming"
        )

    def on_pre_optimizer_step(self, *_: object, optimizer: torch.optim.Optimizer, **__: object) -> None:
        """Read the gradients, accumulated, reduced, unscaled and clipped."""
        self._scale = _scale(optimizer)
        self.ema.read_gradients()

    def on_optimizer_step(self, *_: object, optimizer: torch.optim.Optimizer, **__: object) -> None:
        """Move theta*, unless the gradient scaler skipped the step.

        A skipped step shows in the falling scale: accelerate's `step_was_skipped` stays False with fused
        optimizers, the Trainer's default, which are called and skip the step themselves (accelerate issue 4242).
        """
        self.ema.update(optimizer.param_groups[0]["lr"], skipped=_scale(optimizer) < self._scale)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, *_: object, model: PreTrainedModel, **__: object
    ) -> None:
        """Put the state of the EMA and theta* as a model into the checkpoint the Trainer has just written."""
        if not state.is_world_process_zero:
            return
        folder = _folder(args, state)
        self._save_model(model, folder / MODEL)
        save_file({name: t.cpu() for name, t in self.ema.state_dict().items()}, folder / STATE)
        record = {"step": state.global_step, "rule": self.rule, "live": live_digest(self.ema)}
        (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")  # last: without it, no state

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, *_: object, model: PreTrainedModel, **__: object
    ) -> None:
        """Write theta* as a model into the output folder."""
        if state.is_world_process_zero:
            self._save_model(model, Path(args.output_dir) / MODEL)

    def _save_model(self, model: PreTrainedModel, folder: Path) -> None:
        """theta* in float32, without touching the live weights."""
        average = dict(zip(self.ema.names, self.ema.average, strict=True))
        model.save_pretrained(folder, state_dict=model.state_dict() | average)


def _scale(optimizer: torch.optim.Optimizer) -> float:
    """Present loss scale; a constant without a gradient scaler."""
    scaler = getattr(optimizer, "scaler", None)
    return float(scaler.get_scale()) if scaler else 1.0


def live_digest(ema: DynamicEMA) -> str:
    """sha256 of the live weights as float32, in order."""
    digest = hashlib.sha256()
    for p in ema.live:
        digest.update(p.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
