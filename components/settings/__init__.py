"""`zenml.yaml` as typed, frozen settings: one module per kind; `load_settings` reads them."""

from components.settings.cluster import ClusterSettings, Schedule
from components.settings.gateway import GatewaySettings, TrialSettings
from components.settings.learning import (
    MACHINE,
    MOST_TOKENS,
    AdapterSettings,
    BaseModelSettings,
    EmaSettings,
    EvaluationSettings,
    Fallback,
    GroupingSettings,
    PseudoLabelSettings,
    PseudoRehearsalSettings,
    RehearsalSettings,
    TuningSettings,
)
from components.settings.length import Length, length, old_shares
from components.settings.loading import SettingsError, changed_keys, differences, home, load_settings
from components.settings.packages import PackageSettings
from components.settings.policy import ApprovalSettings, GateSettings, PolicySettings, SiteApproval
from components.settings.quality import DriftSettings, KnownSettings, QualitySettings, ValidationSettings
from components.settings.removed import stored_settings
from components.settings.root import Settings
from components.settings.services import (
    AuditSettings,
    MailSettings,
    NotifySettings,
    PriceSettings,
    ProposalSettings,
    RegistrySettings,
    RetentionSettings,
    ServeSettings,
    StorageSettings,
)

__all__ = [
    "MACHINE",
    "MOST_TOKENS",
    "AdapterSettings",
    "ApprovalSettings",
    "AuditSettings",
    "BaseModelSettings",
    "ClusterSettings",
    "DriftSettings",
    "EmaSettings",
    "EvaluationSettings",
    "Fallback",
    "GateSettings",
    "GatewaySettings",
    "GroupingSettings",
    "KnownSettings",
    "Length",
    "MailSettings",
    "NotifySettings",
    "PackageSettings",
    "PolicySettings",
    "PriceSettings",
    "ProposalSettings",
    "PseudoLabelSettings",
    "PseudoRehearsalSettings",
    "QualitySettings",
    "RegistrySettings",
    "RehearsalSettings",
    "RetentionSettings",
    "Schedule",
    "ServeSettings",
    "Settings",
    "SettingsError",
    "SiteApproval",
    "StorageSettings",
    "TrialSettings",
    "TuningSettings",
    "ValidationSettings",
    "changed_keys",
    "differences",
    "home",
    "length",
    "load_settings",
    "old_shares",
    "stored_settings",
]
