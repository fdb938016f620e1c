"""The same training by TRL's SFTTrainer with plain PEFT LoRA."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback

from components.model.prompts import Rendered
from components.settings import TuningSettings

try:
    import datasets
    import trl
except ImportError as error:
    raise SystemExit(
        f"{error.name} is not installed, and this benchmark compares with TRL's SFTTrainer. lcia itself does not need "
        "it: install `trl` and `datasets` into an environment of their own, as benchmarks/tuning_speed/README.md says, "
        "or measure lcia alone with --without-trl"
    ) from error


@dataclass(frozen=True)
class Run:
    """Losses of a run, seconds at its begin and at the end of each step."""

    losses: list[float]
    clock: list[float]


class Baseline:
    """SFTTrainer on its own copy of the base model.

    `checkpointing` is TRL's default: gradient checkpointing, for which TRL makes the embeddings require gradients, so
    that the backward pass runs through all layers, also those below the first adapter. `kind` loads the model, and
    `now` tells the seconds. On a GPU a bfloat16 base means mixed precision, TRL's default.
    """

    def __init__(
        self,
        folder: Path,
        dtype: str,
        lora: LoraConfig,
        *,
        checkpointing: bool = False,
        device: str = "cpu",
        kind: type = AutoModelForCausalLM,
        now: Callable[[], float] = time.process_time,
    ) -> None:
        model = kind.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True).to(device)
        self.model = get_peft_model(model, lora)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.checkpointing = checkpointing
        self.on_cpu, self.now = device == "cpu", now
        self.mixed = dtype == "bfloat16" and not self.on_cpu

    def train(
        self,
        batches: Sequence[Sequence[Rendered]],
        start: Mapping[str, Tensor],
        settings: TuningSettings,
        schedule,
        collate: Callable | None = None,
    ) -> Run:
        """One pass over `batches` from the adapter `start`; `schedule(step)` is the learning rate.

        `collate` makes a batch of rows `input_ids`, `labels`; None takes TRL's own.
        """
        set_peft_model_state_dict(self.model, dict(start))
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: schedule(k) / settings.learning_rate)
        rows = [row for batch in batches for row in batch]
        columns = {
            "input_ids": [list(r.tokens) for r in rows],
            "labels": [[-100] * len(r.prompt) + list(r.answer) for r in rows],
        }
        clock = Clock(self.now)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Recorded(
                model=self.model,
                args=trl.SFTConfig(
                    output_dir=folder,
                    per_device_train_batch_size=len(batches[0]),
                    max_steps=len(batches),
                    max_grad_norm=settings.max_grad_norm,
                    train_sampling_strategy="sequential",
                    dataset_kwargs={"skip_prepare_dataset": True},
                    gradient_checkpointing=self.checkpointing,
                    bf16=self.mixed,
                    use_cpu=self.on_cpu,
                    dataloader_pin_memory=not self.on_cpu,
                    save_strategy="no",
                    logging_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                ),
                data_collator=collate,
                train_dataset=datasets.Dataset.from_dict(columns),
                processing_class=self.tokenizer,
                optimizers=(optimizer, scheduler),
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return Run(trainer.losses, clock.seconds)


class Clock(TrainerCallback):
    """Seconds at the begin of training and at the end of each step."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.seconds: list[float] = []

    def on_train_begin(self, *_, **__) -> None:
        self.seconds.append(self.now())

    def on_step_end(self, *_, **__) -> None:
        self.seconds.append(self.now())


class Recorded(trl.SFTTrainer):
    """Keeps the loss of every step."""

    def __init__(self, **options) -> None:
        self.losses: list[float] = []
        super().__init__(**options)

    def training_step(self, *args, **options) -> Tensor:
        loss = super().training_step(*args, **options)
        self.losses.append(float(loss))
        return loss


VERSIONS = f"TRL {trl.__version__}, datasets {datasets.__version__}"
