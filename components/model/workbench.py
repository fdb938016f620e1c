"""The loaded base model with its adapter slot and trunk: what tunes, evaluates and answers works on one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from components.model.adapters import AdapterSlot
from components.model.base import BaseModel, is_available, load_base
from components.model.ranks import ALONE, Ranks
from components.model.trunk import Trunk
from components.settings import AdapterSettings, BaseModelSettings, Settings


@dataclass(frozen=True)
class Workbench:
    """The loaded base model with its adapter slot and trunk."""

    base: BaseModel
    slot: AdapterSlot
    trunk: Trunk

    @classmethod
    def load(
        cls, settings: Settings, announce: Callable[[str], None] | None = None, ranks: Ranks = ALONE
    ) -> "Workbench":
        """Load what the settings name; a process loads it once. `announce` gets a line for each long part."""
        if announce and not is_available(settings.base_model, Path(settings.storage.models)):
            announce("converting the embedded model to safetensors (once, about 20 seconds)")
        return _load(settings.base_model, settings.storage.models, settings.adapter, ranks)


@lru_cache(maxsize=1)
def _load(base_model: BaseModelSettings, models: str, adapter: AdapterSettings, ranks: Ranks) -> Workbench:
    base = load_base(base_model, Path(models), ranks)
    slot = AdapterSlot(base, adapter)
    if base.is_sharded:
        from components.model.sharding import spread

        spread(base, slot)
    return Workbench(base, slot, Trunk(base, slot))
