"""Whether a base model takes images, told from its files alone: what asks may hold no torch."""

from pathlib import Path

from components.settings import BaseModelSettings

PROCESSOR = ("preprocessor_config.json", "processor_config.json")
"""Where an image processor is described, in older and newer folders."""


def may_see(settings: BaseModelSettings) -> bool:
    """Whether images can be given to the configured base model; also where it is not on this machine yet."""
    if settings.name.startswith("embedded:"):
        return False
    folder = Path(settings.name).expanduser()
    if folder.is_dir():
        return any((folder / name).exists() for name in PROCESSOR)
    return _cached(settings, *PROCESSOR) or not _cached(settings, "config.json")


def _cached(settings: BaseModelSettings, *names: str) -> bool:
    """Whether one of the files of a hub model is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(settings.name, one, revision=settings.revision), str) for one in names)
