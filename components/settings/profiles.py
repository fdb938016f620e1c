"""Profiles: sets of defaults that lie below the settings file, the environment and --set."""

from collections.abc import Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any, Literal

Profile = Literal["quick", "default", "paper"]

PROFILES: Mapping[Profile, Mapping[str, Any]] = MappingProxyType(
    {
        "quick": {
            "adapter": {"top_layers": 6},
            "tuning": {
                "epochs": 2.0,
                "max_rows": 240,
                "batch_size": 4,
                "pseudo_rehearsal": {"tasks": "without_rows"},
            },
        },
        "default": {},
        "paper": {
            "adapter": {"rank": 128, "alpha": 256.0, "dropout": 0.05, "top_layers": "all"},
            "tuning": {
                "epochs": 1.0,
                "min_steps": 1,
                "early_stopping": False,
                "learning_rate": 2e-4,
                "warmup": 0.03,
                "decay": "cosine",
                "ema": {"rule": "released", "max_fallback": 1.0},
                "rehearsal": {"share": 0.0},
                "pseudo_rehearsal": {"share": 0.0},
            },
        },
    }
)
"""Values that a profile changes.

`quick`: three example tasks in minutes on two CPU cores (`lcia demo`). `paper`: the choices of "Large Continual
Instruction Assistant" (ICML 2025, arXiv 2410.10868) and its published code; its batch, 8 to 20 rows on each of 8 GPUs,
is left to `tuning.batch_size`."""


def below(values: Mapping[str, Any], profile: str) -> dict[str, Any]:
    """`values` with the profile's in all places that they leave open; those of an unknown profile as they are."""
    defaults = dict(PROFILES).get(profile, {})  # type: ignore[call-overload] # the caller checks the name
    return _merge(defaults, values)


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = deepcopy(dict(under))
    for key, value in over.items():
        beneath = out.get(key)
        both = isinstance(beneath, Mapping) and isinstance(value, Mapping)
        out[key] = _merge(beneath, value) if both else value  # type: ignore[arg-type] # both are mappings
    return out
