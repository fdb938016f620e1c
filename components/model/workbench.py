"""The loaded base model with its adapter slot and trunk: what tunes, evaluates and answers works on one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from components.model.adapters import AdapterSlot, config_of, first_layer
from components.model.base import BaseModel, is_available, load_base
from components.model.ranks import ALONE, Ranks
from components.model.trunk import Trunk
from components.settings import AdapterSettings, BaseModelSettings, Settings
from components.storage.objects import ObjectStore


@dataclass(eq=False)
class Workbench:
    """The loaded base model with its adapter slot and trunk; one for all callers of a process."""

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

    def fit(self, store: ObjectStore, adapters: Iterable[str]) -> None:
        """Make the slot as deep as the settings say; `auto` also as deep as the deepest of the stored `adapters`.

        Whatever the process did before, so that a tuning run depends on its order alone.

        Raises:
            ObjectMissing, ObjectCorrupt: an adapter is absent or was altered.
        """
        first = self.slot.own_first_layer
        if self.slot.settings.top_layers == "auto":
            first = min([first, *(first_layer(config_of(store, digest)) for digest in adapters)])
        if first != self.slot.first_layer:
            self._adapt_from(first)

    def cover(self, first_layer: int) -> None:
        """Make the slot deep enough for an adapter on the layers from `first_layer` on, to answer with it."""
        if first_layer < self.slot.first_layer:
            self._adapt_from(first_layer)

    def _adapt_from(self, first_layer: int) -> None:
        self.slot.adapt_from(first_layer)
        self.trunk = Trunk(self.base, self.slot)


@lru_cache(maxsize=1)
def _load(base_model: BaseModelSettings, models: str, adapter: AdapterSettings, ranks: Ranks) -> Workbench:
    base = load_base(base_model, Path(models), ranks)
    slot = AdapterSlot(base, adapter)
    if base.is_sharded:
        from components.model.sharding import spread

        spread(base, slot)
    return Workbench(base, slot, Trunk(base, slot))
