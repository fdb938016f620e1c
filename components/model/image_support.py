"""Test for image support of a base model from its files alone: some callers must not load torch."""

from pathlib import Path

from components.settings import BaseModelSettings

PROCESSOR = ("preprocessor_config.json", "processor_config.json")
"""Files that describe an image processor, in older and newer folders."""


def may_see(settings: BaseModelSettings) -> bool:
    """True if the configured base model takes images, or if it is not on this machine yet."""
    if settings.name.startswith("embedded:"):
        return False
    folder = Path(settings.name).expanduser()
    if folder.is_dir():
        return any((folder / name).exists() for name in PROCESSOR)
    return _in_cache(settings, *PROCESSOR) or not _in_cache(settings, "config.json")


def _in_cache(settings: BaseModelSettings, *names: str) -> bool:
    """True if one of the files of a hub model is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(settings.name, one, revision=settings.revision), str) for one in names)
