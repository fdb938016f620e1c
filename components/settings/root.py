"""The whole of zenml.yaml."""

from collections.abc import Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, model_validator

from components.settings.cluster import ClusterSettings, Schedule, ScheduleName
from components.settings.gateway import GatewaySettings
from components.settings.learning import (
    MACHINE,
    AdapterSettings,
    BaseModelSettings,
    EvaluationSettings,
    GroupingSettings,
    TuningSettings,
)
from components.settings.packages import PackageSettings
from components.settings.policy import PolicySettings
from components.settings.profiles import Profile, below
from components.settings.quality import QualitySettings
from components.settings.section import Section
from components.settings.services import (
    AuditSettings,
    InboxSettings,
    NotifySettings,
    PriceSettings,
    ProposalSettings,
    QueueSettings,
    RegistrySettings,
    RetentionSettings,
    ServeSettings,
    StorageSettings,
    TrainSettings,
)

LATER: Mapping[tuple[str, ...], Any] = MappingProxyType(
    {
        ("adapter", "projector"): False,
        ("tuning", "projector_learning_rate"): None,
        ("tuning", "decay"): "linear",
        ("tuning", "rows_per_pass"): None,
        ("tuning", "gradient_checkpointing"): False,
        ("tuning", "epochs"): 3.0,
        ("tuning", "min_steps"): 60,
        ("tuning", "max_steps"): 3000,
        ("tuning", "early_stopping"): False,
        ("tuning", "pseudo_rehearsal", "rows_per_task"): 60,
        ("base_model", "quantization"): None,
        ("base_model", "date"): "2026-01-01",
        ("policy", "approval", "unknown_sender"): 1,
    }
)
"""Keys that are younger than some versions, and the values that those were made with. At them they are not part of a
version's content, so that its digest stays the same; whatever their defaults are later, a version without them is read
with these. (Versions without `epochs` have `steps`, beside which it and its bounds say nothing.)"""


def with_later_keys(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a stored version, with the keys of `LATER` that it is too old to have."""
    values = deepcopy(dict(content))
    for (*sections, key), value in LATER.items():
        node: Any = values
        for section in sections:
            node = node.get(section) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.setdefault(key, value)
    return values


class Settings(Section):
    """Everything a run depends on."""

    assistant: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = "assistant"
    """Name of the assistant: the registered model and the lineage."""
    profile: Profile = "default"
    """Defaults below all that is set otherwise: `quick` for a trial in minutes, `paper` for the paper's choices."""
    storage: StorageSettings = StorageSettings()
    registry: RegistrySettings = RegistrySettings()
    base_model: BaseModelSettings = BaseModelSettings()
    adapter: AdapterSettings = AdapterSettings()
    grouping: GroupingSettings = GroupingSettings()
    tuning: TuningSettings = TuningSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    quality: QualitySettings = QualitySettings()
    policy: PolicySettings = PolicySettings()
    train: TrainSettings = TrainSettings()
    queue: QueueSettings = QueueSettings()
    notify: NotifySettings = NotifySettings()
    serve: ServeSettings = ServeSettings()
    gateway: GatewaySettings = GatewaySettings()
    packages: PackageSettings = PackageSettings()
    inbox: InboxSettings = InboxSettings()
    retention: RetentionSettings = RetentionSettings()
    audit: AuditSettings = AuditSettings()
    prices: PriceSettings = PriceSettings()
    proposals: ProposalSettings = ProposalSettings()
    cluster: ClusterSettings | None = None
    """Runs on Kubernetes; null: on this machine."""
    schedules: dict[ScheduleName, Schedule] = Field(default_factory=dict)
    """Work at set times, by name; `lcia schedule render` writes the CronJobs."""
    zenml: dict[str, Any] = Field(default_factory=dict)
    """ZenML run configuration, checked against ZenML's own field names and passed on."""

    @model_validator(mode="before")
    @classmethod
    def _over_profile(cls, values: Any) -> Any:  # noqa: ANN401 - whatever a file holds
        return below(values, values.get("profile", "default")) if isinstance(values, dict) else values

    def content(self, *, whole: bool = False) -> dict[str, Any]:
        """The settings that a version may depend on: all but those about storage and machines.

        A profile is on record by the values that it led to. With `whole` the keys of `LATER` are there at any value.
        """
        machine: dict[str, Any] = {
            "profile": True,
            "base_model": set(MACHINE),
            "storage": True,
            "registry": True,
            "packages": True,
            "inbox": True,
            "retention": True,
            "audit": True,
            "prices": True,
            "proposals": True,
            "train": True,
            "queue": True,
            "notify": True,
            "serve": True,
            "gateway": True,
            "cluster": True,
            "schedules": True,
            "zenml": True,
        }
        content = self.model_dump(mode="json", exclude=machine)
        for (*sections, key), value in LATER.items():
            node = content
            for section in sections:
                node = node[section]
            if node[key] == value and not whole:
                del node[key]
        return content

    def for_steps(self) -> dict[str, Any]:
        """The settings for the steps: all but sections they have no use for, which may hold passwords."""
        outside: dict[str, Any] = {
            "storage": {"database", "promoter", "keeper"},
            "registry": True,
            "audit": True,
            "inbox": True,
            "notify": True,
            "serve": True,
            "gateway": True,
        }
        return self.model_dump(mode="json", exclude=outside)
