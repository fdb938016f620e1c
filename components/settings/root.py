"""The whole of zenml.yaml."""

from typing import Annotated, Any

from pydantic import Field

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
from components.settings.quality import QualitySettings
from components.settings.section import Section
from components.settings.services import (
    AuditSettings,
    InboxSettings,
    NotifySettings,
    PriceSettings,
    RegistrySettings,
    RetentionSettings,
    ServeSettings,
    StorageSettings,
)

LATER = (
    ("adapter", "projector"),
    ("tuning", "projector_learning_rate"),
    ("tuning", "decay"),
    ("tuning", "rows_per_pass"),
    ("tuning", "gradient_checkpointing"),
    ("base_model", "quantization"),
    ("base_model", "date"),
    ("policy", "approval", "unknown_sender"),
)
"""Keys that are younger than some versions: at their defaults they are not part of a version's content, so that its
digest stays the same."""


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
    gateway: GatewaySettings = GatewaySettings()
    packages: PackageSettings = PackageSettings()
    inbox: InboxSettings = InboxSettings()
    retention: RetentionSettings = RetentionSettings()
    audit: AuditSettings = AuditSettings()
    prices: PriceSettings = PriceSettings()
    cluster: ClusterSettings | None = None
    """Runs on Kubernetes; null: on this machine."""
    schedules: dict[ScheduleName, Schedule] = Field(default_factory=dict)
    """Work at set times, by name; `lcia schedule render` writes the CronJobs."""
    zenml: dict[str, Any] = Field(default_factory=dict)
    """ZenML run configuration, checked against ZenML's own field names and passed on."""

    def content(self) -> dict[str, Any]:
        """The settings that a version may depend on: all but those about storage and machines."""
        machine: dict[str, Any] = {
            "base_model": set(MACHINE),
            "storage": True,
            "registry": True,
            "packages": True,
            "inbox": True,
            "retention": True,
            "audit": True,
            "prices": True,
            "notify": True,
            "serve": True,
            "gateway": True,
            "cluster": True,
            "schedules": True,
            "zenml": True,
        }
        content = self.model_dump(mode="json", exclude=machine)
        usual = type(self)().model_dump(mode="json")
        for *sections, key in LATER:
            here, there = content, usual
            for section in sections:
                here, there = here[section], there[section]
            if here[key] == there[key]:
                del here[key]
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
